"""The first connections know the statements that somebody waits for, and nobody notices."""

from __future__ import annotations

from contextlib import AsyncExitStack

from coordinator.store import adding, building, claims, item_changes, results, waits, warmup
from coordinator.store.pool import Connection, Database
from tests.harness import Server
from tests.store.bench import Bench

WAITED_FOR = (
    claims._CLAIM,
    waits._FIND_WAITS,
    claims._RELEASE_SESSION,
    adding._ADD,
    building._MAKE,
    building._PUT,
    item_changes._LOCK,
    item_changes._TAKE,
    results._SETTLE,
)

_PLANNED = "SELECT statement FROM pg_prepared_statements WHERE generic_plans > 0"

_CHANGED = """
SELECT relname FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY relname"""


async def planned(db: Connection) -> set[str]:
    return {row["statement"] for row in await db.fetch(_PLANNED)}


async def test_the_connections_that_a_node_began_with_know_them(server: Server) -> None:
    (task,) = [one for one in server.node.tasks if one.get_name() == "warmup"]
    await task
    database = server.node.parts.core.database
    async with AsyncExitStack() as stack:
        all_of_them = [await stack.enter_async_context(database.connection()) for _ in range(database.size)]
        found = [await planned(db) for db in all_of_them]
    assert sum(one.issuperset(WAITED_FOR) for one in found) >= 2


async def test_each_is_asked_once_and_that_is_not_counted_as_work(database: Database) -> None:
    asked = []

    async def step(db: Connection) -> None:
        asked.append(db.get_server_pid())
        await warmup.warm_up(db)

    async with database.connection() as one, database.connection() as other:
        pids = {one.get_server_pid(), other.get_server_pid()}
        await database.warm_up(step)
        assert not pids.intersection(asked), "it is in use"
    asked.clear()
    before = {one.statement: one.calls for one in database.load.snapshot().statements}
    await database.warm_up(step)
    assert pids.issubset(asked)
    assert len(asked) == len(set(asked))
    assert {one.statement: one.calls for one in database.load.snapshot().statements} == before
    async with database.connection() as db:
        assert (await planned(db)).issuperset(WAITED_FOR)


async def test_nothing_changes_by_them(bench: Bench) -> None:
    await bench.waiting(3)
    await bench.bucket(3)
    await bench.claim(await bench.worker("ada"))
    async with bench.database.transaction() as db:
        before = await db.fetch(_CHANGED)
        await warmup.warm_up(db)
        assert await db.fetch(_CHANGED) == before
