"""The plans of the statements that run all the time: none of them reads a whole table, however old the statistics.

200,000 buckets, mostly done, and a million waiting items; each plan is looked at as a prepared generic one, which is
what the pool's connections use.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from coordinator.model import Boot, ClientId, Demand, ServiceId, ServiceSettings, SessionId
from coordinator.store import (
    adding,
    buckets,
    building,
    claim_history,
    claims,
    client_record,
    clients,
    due,
    health,
    invalidations,
    item_changes,
    item_places,
    items,
    overdue,
    people,
    pruning,
    rechecks,
    recollects,
    result_pages,
    results,
    statistics,
    waits,
)
from coordinator.store.pool import Connection, Database
from tests.databases import Databases

pytestmark = [pytest.mark.long, pytest.mark.measured]

BIG = frozenset(
    {"bucket", "bucket_items", "open_bucket", "waiting", "claim", "result", "item", "membership", "client_label"}
)

ENDLESS = BIG - {"membership", "client_label"}
"""Those that grow with the work, not with who does it."""

OF_OPEN_ONES = frozenset({"bucket_held", "bucket_split", "bucket_done"})
"""Indexes that are as large as what is under way, and may be walked."""

COUNT_THE_POOL = frozenset({"statistics._STATE", "buckets._OPEN_BUCKETS"})
"""Statements that look at all ready buckets, of which there are ten thousand at most."""

# 190,000 done, 9,000 ready, 600 claimed, 400 dead; three items each, none of them in the catalogue.
_FILL = """
INSERT INTO service (name, plugin, title) VALUES ('many', 'dm_check', 'many');
INSERT INTO client (client_id, screen_name) SELECT 'c' || n, 'c' FROM generate_series(1, 500) n;
INSERT INTO membership (client_id, service_id)
SELECT client_id, service_id FROM client, service WHERE name = 'many';
INSERT INTO bucket (bucket_id, service_id, state, rank_at, since, priority, settled, claim_id, client_id, session_id,
                    boot, touched_at, indexed)
SELECT gen_random_uuid(), s.service_id,
       CASE WHEN n <= 190000 THEN 'done' WHEN n <= 199000 THEN 'ready' WHEN n <= 199600 THEN 'claimed' ELSE 'dead' END,
       now() - interval '1 s' * (200000 - n), now(), 100, CASE WHEN n <= 190000 THEN B'111' ELSE B'000' END, n,
       CASE WHEN n > 199000 THEN 'c' || (n % 500) + 1 END, CASE WHEN n > 199000 THEN gen_random_uuid() END,
       CASE WHEN n > 199000 THEN 1 END, CASE WHEN n > 199000 THEN now() END, n > 189000
  FROM generate_series(1, 200000) n, service s WHERE s.name = 'many';
INSERT INTO bucket_items (bucket_id, items)
SELECT bucket_id, ARRAY[claim_id * 3, claim_id * 3 + 1, claim_id * 3 + 2] FROM bucket WHERE claim_id > 0;
INSERT INTO open_bucket (bucket_id, blocks, frame)
SELECT bucket_id, item_blocks(items), '[]'
  FROM bucket JOIN bucket_items USING (bucket_id) WHERE indexed AND claim_id > 0;
INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given, settled, begun_at, ended_at,
                   ended)
SELECT claim_id, bucket_id, service_id, 'c' || (claim_id % 20) + 1, gen_random_uuid(), 1, B'111',
       CASE WHEN state = 'done' THEN 3 ELSE 0 END, now(), CASE WHEN state = 'done' THEN now() END,
       CASE WHEN state = 'done' THEN 'settled' END
  FROM bucket WHERE claim_id > 0 AND claim_id NOT BETWEEN 190001 AND 199000;
INSERT INTO waiting (service_id, block, rank_at, since, priority, offsets)
SELECT s.service_id, n + 1000, now() + interval '1 s' * n, now(), 100,
       ARRAY (SELECT o::smallint FROM generate_series(0, 1023) AS o)
  FROM generate_series(1, 1000) n, service s WHERE s.name = 'many';
INSERT INTO item (key) SELECT 'k' || n FROM generate_series(1, 400000) n;
INSERT INTO result (item_id, service_id, claim_id, value)
SELECT claim_id * 3, service_id, claim_id, '1' FROM claim WHERE claim_id <= 100000;
SELECT setval('claim_number', 200000);
"""

# What the statistics are of, until they are gathered again: a day's beginning, when all was ready and little waited.
_BEFORE = """
INSERT INTO service (name, plugin, title) VALUES ('few', 'dm_check', 'few');
INSERT INTO bucket (bucket_id, service_id, state, rank_at, since, priority, settled)
SELECT gen_random_uuid(), s.service_id, 'ready', now(), now(), 100, B'000'
  FROM generate_series(1, 50) n, service s WHERE s.name = 'few';
INSERT INTO bucket_items (bucket_id, items) SELECT bucket_id, ARRAY[-1, -2, -3] FROM bucket;
INSERT INTO open_bucket (bucket_id, blocks, frame) SELECT bucket_id, ARRAY[-1], '[]' FROM bucket;
INSERT INTO waiting (service_id, block, rank_at, since, priority, offsets)
SELECT s.service_id, -n, now(), now(), 100, ARRAY[0] FROM generate_series(1, 50) n, service s WHERE s.name = 'few';
VACUUM ANALYZE
"""


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[str]:
    """The DSN of a filled database whose statistics are from before it was filled."""

    async def fill() -> str:
        dsn = await databases.create("plans")
        connection = await asyncpg.connect(dsn)
        # Autovacuum must not come between: the statistics are part of the test.
        for row in await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ):
            await connection.execute(f"ALTER TABLE {row['relname']} SET (autovacuum_enabled = false)")
        for statement in (*_BEFORE.split(";"), _FILL):
            await connection.execute(statement)
        await connection.close()
        return dsn

    yield asyncio.run(fill())
    asyncio.run(databases.drop("plans"))


@pytest.fixture
async def many(filled: str) -> AsyncIterator[Database]:
    """A pool on it."""
    database = Database(filled)
    await database.open()
    yield database
    await database.close()


def _statements() -> dict[str, str]:
    """Statements for every ask, submit and release, for every look at the clock, and for those who watch or add."""
    found = {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in (adding, claims, waits, recollects, rechecks, results, building, health, due, pruning)
        for name, value in vars(module).items()
        if isinstance(value, str) and re.match(r"\s*(WITH|SELECT|UPDATE|DELETE)\b", value) and " FROM " in value
    }
    for module, names in (
        (items, ("_WAITING", "_STATES")),
        (invalidations, ("_NEXT", "_REQUEUE")),
        (item_changes, ("_LOCK", "_TAKE", "_TAKE_OUT")),
        (statistics, ("_STATE", "_FRONTS")),
        (
            people,
            (
                "_COUNT_CLIENTS",
                "_ACTIVE_IN",
                "_NAMED",
                "_BY_ID",
                "_BY_ID_BACKWARDS",
                "_BY_VALUE",
                "_COUNT",
                "_MEMBERSHIPS_OF",
            ),
        ),
        (buckets, ("_OPEN_BUCKETS", "_OPEN_BUCKETS_OF_CLIENT", "_ONE", "_WITH_ITEM")),
        (client_record, ("_HOURS", "_OUTCOMES")),
        (clients, ("_READ", "_BEGIN_SESSIONS")),
        (claim_history, ("_OF_BUCKET", "_OF_ITEM")),
        (item_places, ("_PLACES", "_ITEMS", "_ID_OF_KEY", "_OF_BUCKET", "_QUARANTINED")),
        (result_pages, ("_CLAIMS", "_CLAIMS_OF_CLIENT", "_CLAIMS_OF_BUCKET", "_RESULTS", "_OF_ITEM")),
    ):
        found |= {f"{module.__name__.rpartition('.')[2]}.{name}": getattr(module, name) for name in names}
    return found


FUNCTIONS = (
    *("delete_results", "results_of_claim", "results_of_claims", "results_of_items"),
    *("free_buckets", "leave_twins", "put_waiting", "settled_items", "take_waiting"),
)
"""Those whose statements have plans of their own, since they are not put into the statement that names them."""

VARIABLES = {"ready_ids": "uuid[]", "first_claim": "bigint", "last_claim": "bigint"}
"""Of these functions, beside their parameters."""

_FUNCTIONS = """
SELECT proname AS name, prosrc AS body, proargnames AS parameters,
       ARRAY (SELECT format_type(type, NULL)
                FROM unnest(proargtypes) WITH ORDINALITY AS t (type, n) ORDER BY n) AS types
  FROM pg_proc
 WHERE pronamespace = 'public'::regnamespace AND proname = ANY ($1)"""


async def _inside_functions(db: Connection) -> dict[str, str]:
    """The statements of these functions, with their parameters numbered."""
    found = {}
    for function in await db.fetch(_FUNCTIONS, FUNCTIONS):
        body = re.sub(r"--.*", "", function["body"]).partition("BEGIN")[2]
        body = re.sub(r"IF (.*) THEN\s+PERFORM[^;]*", r"SELECT \1", body)
        body = re.sub(r"RETURN ARRAY", "SELECT ARRAY", re.sub(r"\w+ := ", "SELECT ", body))
        body = re.sub(r"RETURN QUERY|END IF|END\b\s*$", "", body)
        given = function["parameters"][: len(function["types"])]  # behind them are columns that it returns
        types = dict(zip(given, function["types"], strict=True)) | VARIABLES
        for n, statement in enumerate(filter(None, map(str.strip, body.split(";")))):
            used = [name for name in types if re.search(rf"\b{name}\b", statement)]
            for number, name in enumerate(used, 1):
                statement = re.sub(rf"\b{name}\b", f"(${number}::{types[name]})", statement)
            found[f"{function['name']}.{n}"] = statement
    return found


def _nodes(
    plan: dict[str, Any], rescanned: bool = False, limited: bool = False
) -> Iterator[tuple[dict[str, Any], bool, bool]]:
    """Every node of a plan, whether it is run anew for each row of another one, and whether few rows are wanted."""
    yield plan, rescanned, limited
    for child in plan.get("Plans", ()):
        inner = plan["Node Type"] == "Nested Loop" and child.get("Parent Relationship") == "Inner"
        yield from _nodes(child, rescanned or inner, limited or plan["Node Type"] == "Limit")


def _each_with_each(node: dict[str, Any]) -> Iterator[str]:
    """Comparisons of each item of a bucket with each of a parameter, which may be ten thousand; a few may be so."""
    if node["Node Type"] == "Nested Loop" and "unnest(" in node.get("Join Filter", ""):
        yield node["Join Filter"]
    for text in (node.get("Filter", ""), *node.get("Output", ())):
        if re.search(r"\bn\.item_id = ANY \(\$", text) and "cardinality($" not in text:
            yield text


async def _plan(db: Connection, statement: str) -> dict[str, Any]:
    parameters = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    await db.execute(f"PREPARE looked_at AS {statement}")
    values = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    text = await db.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE looked_at {values}")
    await db.execute("DEALLOCATE looked_at")
    plan: dict[str, Any] = (json.loads(text) if isinstance(text, str) else text)[0]["Plan"]
    return plan


async def bad_plans(db: Connection) -> list[str]:
    found = []
    inside = await _inside_functions(db)
    assert {name.partition(".")[0] for name in inside} == set(FUNCTIONS)
    assert {"free_buckets.1", "leave_twins.1"} <= set(inside)
    for name, statement in (_statements() | inside).items():
        for node, rescanned, limited in _nodes(await _plan(db, statement)):
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
                found.append(f"{name}: reads all of {node['Relation Name']}")
            walked = node["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" not in node
            small = OF_OPEN_ONES | {"bucket_ready"} if name in COUNT_THE_POOL else OF_OPEN_ONES
            walked = walked and node["Relation Name"] in ENDLESS and node["Index Name"] not in small
            # Of which item a result is stands first in its key.
            walked = walked or (node.get("Index Name") == "result_pkey" and "item_id" not in node["Index Cond"])
            if walked and ("Filter" in node or not limited):
                found.append(f"{name}: walks all of {node['Index Name']}")
            found += [f"{name}: compares each with each: {text}" for text in _each_with_each(node)]
            if node["Node Type"] == "LockRows" and rescanned:
                found.append(f"{name}: locks rows again for each row of another scan")
    return found


async def test_no_hot_statement_reads_a_whole_table(many: Database) -> None:
    async with many.connection() as db:
        assert await bad_plans(db) == [], "with old statistics"
        await db.execute("ANALYZE", timeout=60)
        assert await bad_plans(db) == [], "with fresh statistics"

        nobody = db.transaction()
        await nobody.start()
        await db.execute("DELETE FROM bucket WHERE client_id IS NOT NULL")
        await db.execute("ANALYZE bucket", timeout=60)
        found = await bad_plans(db)
        await nobody.rollback()
        assert found == [], "with statistics of when nobody held a bucket"


async def test_a_claim_of_so_many_buckets_hands_out_no_more(many: Database) -> None:
    async with many.connection() as db:
        service = ServiceId(await db.fetchval("SELECT service_id FROM service WHERE name = 'many'"))
        for asked in (1, 3, 64):
            session = SessionId(uuid4())
            demands = [Demand(ClientId(f"c{n % 50 + 1}"), session, "127.0.0.1") for n in range(asked)]
            got = (await claims.claim(db, service, demands, Boot(2), ServiceSettings(newcomer_buckets=20))).claimed
            assert len(got) == asked
            assert await db.fetchval("SELECT count(*) FROM bucket WHERE session_id = $1", session) == asked
        marked = await overdue.mark_dead(db, service, 0.0, Boot(1))
        assert len(marked) == 500
        assert await db.fetchval("SELECT count(*) FROM bucket WHERE state = 'dead'") == 900


async def test_hellos_read_the_clients_that_they_name_though_there_were_none_when_the_plan_was_made(
    databases: Databases,
) -> None:
    database = Database(await databases.create("no_clients"))
    await database.open()
    async with database.connection() as db:
        for table in ("client", "membership"):
            await db.execute(f"VACUUM ANALYZE {table}")
        for statement in (clients._READ, clients._BEGIN_SESSIONS):
            nodes = [node for node, _, _ in _nodes(await _plan(db, statement))]
            read = [node for node in nodes if node.get("Relation Name") in ("client", "membership")]
            assert read
            assert [node for node in read if "Index Cond" not in node and "Recheck Cond" not in node] == []
    await database.close()
    await databases.drop("no_clients")
