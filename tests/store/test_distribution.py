"""The results may be distributed over several machines: what that takes of the SQL, and what the command makes sure of.

What runs on Citus itself is told in `deploy/citus/README.md`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest

from coordinator import services, store
from coordinator.errors import ConfigError
from coordinator.model import Boot
from coordinator.store import distribution
from coordinator.store.distribution import Facts, Worker
from coordinator.store.pool import Database
from tests.serve.tools import eventually
from tests.store.bench import Bench

TABLES = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|USING|ONLY|TABLE)\s+(?:public\.)?(\w+)", re.IGNORECASE)

READERS = {"delete_results", "results_of_claim", "results_of_claims", "results_of_items"}

WORKERS = (Worker("one:5432", "on", "200"), Worker("two:5432", "on", "200"))

READY = Facts("13.2-1", owner=True, results=1000, bytes=120_000, coordinating=True, workers=WORKERS)


def statements() -> Iterator[tuple[str, str]]:
    """Every statement of the store and of the built-in services, with its name."""
    for package in (store, services):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".example" in found.name:
                continue
            for name, value in vars(importlib.import_module(found.name)).items():
                texts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
                for text in texts:
                    if isinstance(text, str) and re.search(r"\b(SELECT|INSERT|UPDATE|DELETE)\b", text):
                        yield f"{found.name}.{name}", text


def test_no_statement_names_the_results() -> None:
    """They are not joined with what is elsewhere, nor read by a plan for whatever values."""
    named = {name for name, _ in statements()}
    assert {"coordinator.store.export._ROWS", "coordinator.store.personal_data._KINDS"} <= named
    assert len(named) > 150
    assert [name for name, text in statements() if "result" in TABLES.findall(re.sub(r"--.*", "", text))] == []


async def test_only_functions_that_name_no_other_table_read_them(bench: Bench) -> None:
    functions = await bench.rows(
        "SELECT proname, prosrc, prosqlbody IS NULL AS loose, proconfig FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace"
    )
    reading = [row for row in functions if row["loose"] and "result" in TABLES.findall(row["prosrc"])]
    assert {row["proname"] for row in reading} == READERS
    for row in reading:
        assert set(TABLES.findall(row["prosrc"])) <= {"result", "unnest"}
        assert "plan_cache_mode=auto" in row["proconfig"]

    # What is bound to the table when it is made: views, and functions in SQL.  Its type counts as well, for Citus.
    bound = """
        SELECT count(*) FROM pg_depend
         WHERE classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
           AND (refobjid = 'result'::regclass
                OR refobjid IN (SELECT oid FROM pg_type WHERE typname IN ('result', '_result')))"""
    assert await bench.value(bound) == 0


async def test_the_keys_of_the_results_begin_with_what_they_are_distributed_by(bench: Bench) -> None:
    keys = await bench.rows(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " WHERE i.indrelid = 'result'::regclass AND i.indisunique"
    )
    assert [row["attname"] for row in keys] == ["item_id"]
    foreign = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND 'result'::regclass IN (conrelid, confrelid)"
    assert await bench.value(foreign) == 0
    assert await bench.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'result'::regclass") == 0


def test_the_plan_says_what_is_done_in_order() -> None:
    does = [step.does for step in distribution.plan(READY, None)]
    assert len(does) == 5
    assert does[0].startswith("set citus.max_adaptive_executor_pool_size = 1")
    assert "1,000 results (120,000 bytes) into 8 shards by item_id, on one:5432, two:5432" in does[2]
    assert "connect anew" in does[-1]
    assert "into 32 shards" in distribution.plan(READY, 32)[2].does
    assert distribution.plan(replace(READY, shards=8), None) == []


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (replace(READY, citus=None), "the extension Citus is not in it"),
        (replace(READY, citus="12.1-1"), "it has Citus 12.1-1; version 13 was expected"),
        (replace(READY, coordinating=False), "no coordinating node"),
        (replace(READY, workers=()), "no machine may have shards"),
        (replace(READY, owner=False), "expected the role that owns it"),
        (replace(READY, workers=(*WORKERS, Worker("three:5432", "off", "200"))), "three:5432 runs with fsync=off"),
        (replace(READY, workers=(Worker("one:5432", "on", "0"),)), "one:5432 has max_prepared_transactions=0"),
    ],
)
def test_what_does_not_do_is_refused_in_one_sentence(facts: Facts, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        distribution.plan(facts, None)
    assert str(refused.value).startswith("database: ")
    assert "\n" not in str(refused.value)


async def test_all_nodes_are_made_to_connect_anew_and_nobody_else(dsn: str) -> None:
    """Sessions of a node bear the number of its start; settings of the database count for new ones only."""
    node, command = Database(dsn, size=2), Database(dsn, size=2)
    await node.open()
    await node.belong_to(Boot(7))
    async with node.connection() as db:
        assert await db.fetchval("SHOW application_name") == "coordinator 7"
        process = await db.fetchval("SELECT pg_backend_pid()")
    other = await asyncpg.connect(dsn, server_settings={"application_name": "coordinators"})
    await command.open()

    async with command.connection() as db:
        await distribution.carry_out(db, distribution.plan(READY, None)[-1:])

    async def ended() -> bool:
        return not await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", process)

    await eventually(ended, "the connection of the node has ended")
    await other.close()
    for database in (node, command):
        await database.close()


async def test_a_database_without_citus_is_looked_at_and_left_alone(bench: Bench) -> None:
    async with bench.database.connection() as db:
        facts = await distribution.look(db)
    assert (facts.citus, facts.owner, facts.shards) == (None, True, None)
    assert facts.bytes > 0
