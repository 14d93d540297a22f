"""The first connections know the statements that somebody waits for, and nobody notices."""

from __future__ import annotations

from contextlib import AsyncExitStack

from coordinator.store import claims, items, making, queue, rehearsal, results
from coordinator.store.pool import Connection, Database
from tests.harness import Server
from tests.store.bench import Bench

WAITED_FOR = (
    claims._CLAIM,
    claims._WAITS,
    claims._RELEASE_SESSION,
    items._ADD,
    making._MAKE_FEW,
    making._PUT,
    queue._LOCK_TO_PRIORITISE,
    queue._TAKE,
    results._SETTLE,
)

_PLANNED = "SELECT statement FROM pg_prepared_statements WHERE generic_plans > 0"

_CHANGED = """
SELECT relname FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY relname"""


async def planned(db: Connection) -> set[str]:
    return {row["statement"] for row in await db.fetch(_PLANNED)}


async def test_a_node_has_their_plans_from_the_start(server: Server) -> None:
    database = server.node._db
    async with AsyncExitStack() as stack:
        all_of_them = [await stack.enter_async_context(database.connection()) for _ in range(database.size)]
        found = [await planned(db) for db in all_of_them]
    assert sum(one.issuperset(WAITED_FOR) for one in found) == 2


async def test_who_needs_one_more_connection_does_not_wait_for_that(dsn: str) -> None:
    database = Database(dsn, size=3, rehearse=rehearsal.rehearse)
    await database.open()
    async with database.connection() as one, database.connection() as other, database.connection() as third:
        assert (await planned(one)).issuperset(WAITED_FOR)
        assert (await planned(other)).issuperset(WAITED_FOR)
        assert not (await planned(third)).intersection(WAITED_FOR)
    await database.close()


async def test_they_are_not_counted_as_work(dsn: str) -> None:
    database = Database(dsn, size=2, rehearse=rehearsal.rehearse)
    await database.open()
    names = {one.statement for one in database.load.snapshot().statements}
    assert not names & {"claims.claim", "results.settle", "items.add", "begin"}
    async with database.connection() as db:
        await db.fetchval("SELECT 1")
    assert "other" in {one.statement for one in database.load.snapshot().statements}
    await database.close()


async def test_nothing_changes_by_them(bench: Bench) -> None:
    await bench.waiting(3)
    await bench.bucket(3)
    await bench.claim(await bench.worker("ada"))
    async with bench.database.transaction() as db:
        before = await db.fetch(_CHANGED)
        await rehearsal.rehearse(db)
        assert await db.fetch(_CHANGED) == before
