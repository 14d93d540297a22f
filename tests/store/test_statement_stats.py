"""Calls of the database are counted under the name of each statement."""

from __future__ import annotations

import asyncio
from time import perf_counter

import asyncpg
import pytest

from coordinator.store import nodes
from coordinator.store.pool import Database
from coordinator.store.statement_stats import MOST_UNNAMED, StatementStats, rows_of
from tests.store.bench import Bench, submit


def counted(database: Database) -> dict[str, tuple[int, int]]:
    """Calls and rows of each statement."""
    return {one.statement: (one.calls, one.rows) for one in database.load.snapshot().statements}


async def test_a_bucket_from_claim_to_commit(bench: Bench) -> None:
    ada = await bench.worker("ada")
    await bench.bucket(3)
    before = counted(bench.database)
    (mine,) = await bench.claim(ada)
    await bench.settle(submit(mine))
    new = {
        name: (calls - before.get(name, (0, 0))[0], rows - before.get(name, (0, 0))[1])
        for name, (calls, rows) in counted(bench.database).items()
        if (calls, rows) != before.get(name)
    }
    assert new == {
        "claims.claim": (1, 1),
        "begin": (1, 0),
        "results.settle": (1, 1),
        "copy.result": (1, 3),
        "commit": (1, 0),
    }


async def test_failures_and_rolled_back_transactions_count_too(bench: Bench) -> None:
    before = counted(bench.database)
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with bench.database.transaction() as db, db.transaction():
            await db.fetchval("SELECT 1 / $1::int", 0)
    now = counted(bench.database)
    for name, more in (("begin", 1), ("savepoint", 1), ("rollback", 2), ("other", 1)):
        assert now[name][0] == before.get(name, (0, 0))[0] + more, name


async def test_seconds_are_those_that_the_statement_took(database: Database) -> None:
    async with database.connection() as db:
        before = database.load.snapshot()
        begun = perf_counter()
        await db.execute("SELECT pg_sleep(0.05)")
        took = perf_counter() - begun
    after = database.load.snapshot()
    (new,) = [one.seconds for one in after.statements if one.statement == "other"]
    old = sum(one.seconds for one in before.statements if one.statement == "other")
    assert 0.05 <= new - old <= took


async def test_waiting_for_a_connection_is_counted(dsn: str) -> None:
    database = Database(dsn, size=2)
    await database.open()
    async with database.connection(), database.connection():
        assert database.load.snapshot().pool_waits == 0

        async def ask() -> None:
            async with database.connection() as db:
                await nodes.clock(db)

        third = asyncio.create_task(ask())
        await asyncio.sleep(0.02)  # it can only wait
    await third
    found = database.load.snapshot()
    assert found.pool_waits == 1
    assert 0.015 <= found.pool_seconds < 5
    assert "nodes.clock" in counted(database)
    await database.close()


def test_names_are_bounded_whatever_is_run() -> None:
    load = StatementStats()
    for number in range(MOST_UNNAMED + 10):
        load.ran(f"SELECT {number}", 1, 0.0)
        load.ran(f"SAVEPOINT asyncpg_{number};", 0, 0.0)
    assert {one.statement: one.calls for one in load.snapshot().statements} == {
        "other": MOST_UNNAMED + 10,
        "savepoint": MOST_UNNAMED + 10,
    }
    assert len(load._by_text) == MOST_UNNAMED


@pytest.mark.parametrize(
    ("status", "rows"),
    [("UPDATE 5", 5), ("INSERT 0 3", 3), ("COPY 180", 180), ("SELECT 0", 0), ("BEGIN", 0), ("CREATE TABLE", 0)],
)
def test_rows_of_a_command_tag(status: str, rows: int) -> None:
    assert rows_of(status) == rows
