"""Cost of the hot statements as the work grows: `python -m tests.bench.at_scale [--items N] [--buckets N]`.

Fills two databases of a fresh embedded Postgres, one with 10 thousand waiting items and buckets, one with N items
(default 10 million) and N buckets (default 1 million, nearly all done), looks at the plans of all hot statements in
both, and prints how often some can be done in the large one against the small one.  Takes some minutes and some
gigabytes, and cleans up behind itself.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter
from uuid import uuid4

import asyncpg
from rich.console import Console

from coordinator.embedded import EmbeddedPostgres
from coordinator.model import Boot, ClientId, Demand, ServiceId, ServiceSettings, SessionId
from coordinator.prepare import prepare_database
from coordinator.services import load_plugins, tables_of
from coordinator.store import adding, building, claims, items, migrate, overdue, results
from coordinator.store.building import QUEUE_START
from coordinator.store.pool import Connection, Database
from coordinator.store.results import CheckedSubmit
from tests.bench.figures import Figure, table_of
from tests.bench.world import folder_for_postgres
from tests.store.test_plans import bad_plans

ROUNDS = 5
"""Of each the small database and the large one are measured in turn."""

TIMES = 101
"""Of which the median is a round's figure."""

_FILL = """
INSERT INTO client (client_id, screen_name) SELECT 'c' || n, 'c' FROM generate_series(1, 16) n;
INSERT INTO membership (client_id, service_id) SELECT client_id, 1 FROM client;
INSERT INTO item (key) SELECT 'k' || n FROM generate_series(1, {items}) n;
INSERT INTO waiting (service_id, block, rank_at, since, priority, offsets)
SELECT 1, item_block(item_id), now() + interval '1 s' * item_block(item_id), now(), 100,
       array_agg(item_offset(item_id) ORDER BY item_id) FROM item GROUP BY 2;
INSERT INTO bucket (bucket_id, service_id, state, rank_at, since, priority, settled, claim_id, indexed)
SELECT gen_random_uuid(), 1, CASE WHEN n % 50 = 0 THEN 'ready' ELSE 'done' END, now() - interval '1 s' * n, now(), 100,
       CASE WHEN n % 50 = 0 THEN B'000' ELSE B'111' END, 0, n % 50 = 0
  FROM generate_series(1, {buckets}) n;
INSERT INTO bucket_items (bucket_id, items) SELECT bucket_id, ARRAY[1, 2, 3] FROM bucket;
INSERT INTO open_bucket (bucket_id, blocks, frame) SELECT bucket_id, ARRAY[0], '[]' FROM bucket WHERE state = 'ready';
"""

CLAIM = "claims, of 16 buckets at a time"
SETTLE = "settling 16 buckets that were claimed"
MAKE = "making 50 buckets"
ADD = "adding a thousand items"
GOALS = {CLAIM: ">= 0.9", SETTLE: ">= 0.8", MAKE: ">= 0.8", ADD: ">= 0.8"}

Probe = Callable[[Connection], Awaitable[object]]


async def _median(db: Connection, probe: Probe) -> float:
    """Median time of a probe in milliseconds.  If it answers with a function, that undoes it, and is not timed."""
    times = []
    for _ in range(TIMES):
        begun = perf_counter()
        undo = await probe(db)
        times.append(perf_counter() - begun)
        if callable(undo):
            await undo()
    return median(times) * 1000


async def _measure(dsn: str) -> dict[str, float]:
    database = Database(dsn, size=2)
    await database.open()
    service, boot, session = ServiceId(1), Boot(1), SessionId(uuid4())
    settings = ServiceSettings(max_held_buckets=10_000, newcomer_buckets=10_000)
    demands = [Demand(ClientId(f"c{n}"), session, "127.0.0.1") for n in range(1, 17)]
    async with database.connection() as db:
        last = await db.fetchrow("SELECT rank_at, item_id FROM waiting_item ORDER BY rank_at DESC OFFSET 101 LIMIT 1")

        async def claim(db: Connection) -> Callable[[], Awaitable[None]]:
            got = (await claims.claim(db, service, demands, boot, settings)).claimed
            assert len(got) == len(demands)

            async def undo() -> None:
                for claimed in got:
                    await claims.release_claim(db, claimed.bucket_id, claimed.claim, claims.UNDELIVERED, 120.0)

            return undo

        @asynccontextmanager
        async def undone() -> AsyncIterator[None]:
            transaction = db.transaction()
            await transaction.start()
            try:
                yield
            finally:
                await transaction.rollback()

        async def settle(db: Connection) -> None:
            async with undone():
                got = (await claims.claim(db, service, demands, boot, ServiceSettings())).claimed
                submits = [
                    CheckedSubmit(
                        service, one.bucket_id, one.claim, one.client_id,
                        [(item, '{"dm":"DM"}') for item in one.items], "1" * len(one.items), True,
                    )
                    for one in got
                ]  # fmt: skip
                assert all(outcome and outcome.closed for outcome in await results.settle(db, submits))

        async def make(db: Connection) -> None:
            async with undone():
                made, _ = await building.make(db, service, 50 * 180, 180, short=False)
                assert made == 50

        async def add(db: Connection) -> None:
            async with undone():
                new = await adding.add_new(db, [(f"new{n:04}", None, "{}") for n in range(1000)])
                await adding.join_new(db, service, new, 100, 0.0)

        found = {
            "first page of the waiting list": await _median(
                db, lambda db: items.waiting(db, service, QUEUE_START, 100)
            ),
            "last page of the waiting list": await _median(
                db, lambda db: items.waiting(db, service, (last["rank_at"], last["item_id"]), 100)
            ),
            CLAIM: await _median(db, claim),
            SETTLE: await _median(db, settle),
            MAKE: await _median(db, make),
            ADD: await _median(db, add),
            "dead-marking, nothing due": await _median(db, lambda db: overdue.mark_dead(db, service, 7200.0, boot)),
            "end of a session that holds nothing": await _median(
                db, lambda db: claims.release_session(db, ClientId("c1"), SessionId(uuid4()), claims.CUT_OFF, 120.0, [])
            ),
        }
    await database.close()
    return found


async def _filled(server: EmbeddedPostgres, count: int, buckets: int) -> str:
    head, _, query = server.dsn.partition("?")
    dsn = f"{head.rsplit('/', 1)[0]}/scale_{count}?{query}"
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"CREATE DATABASE scale_{count}")
    await admin.close()

    database = Database(dsn, size=2)
    await database.open()
    await migrate.migrate(database, tables_of(load_plugins()))
    await database.close()
    await prepare_database(dsn, None)

    filler = await asyncpg.connect(dsn)
    for statement in _FILL.format(items=count, buckets=buckets).split(";"):
        if statement.strip():
            await filler.execute(statement, timeout=1800)
    await filler.execute("VACUUM ANALYZE", timeout=1800)
    await filler.close()
    return dsn


async def _look_at_plans(dsn: str) -> None:
    database = Database(dsn, size=2)
    await database.open()
    async with database.connection() as db:
        bad = await bad_plans(db)
        assert not bad, bad
    await database.close()


async def measure(count: int, buckets: int) -> list[Figure]:
    """Measure with so many items and buckets, on a Postgres of its own, which is gone at the end."""
    folder = await asyncio.to_thread(folder_for_postgres, "scale")
    server = EmbeddedPostgres(folder, {"max_wal_size": "8GB"})
    try:
        await asyncio.to_thread(server.start)
        small, large = await _filled(server, 10_000, 10_000), await _filled(server, count, buckets)
        await _measure(small), await _measure(large)  # the first ones warm up

        rounds = []
        for number in range(ROUNDS):
            first, second = (small, large) if number % 2 else (large, small)
            found = {first: await _measure(first), second: await _measure(second)}
            rounds.append((found[small], found[large]))

        for dsn in (small, large):
            await _look_at_plans(dsn)
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(folder)

    figures = []
    for name in rounds[0][0]:
        before, after = (median(pair[which][name] for pair in rounds) for which in (0, 1))
        goal = GOALS.get(name, "")
        base = f"{before:.2f} ms with 10,000 items, {after:.2f} ms with {count:,}"
        ratios = [few[name] / many[name] for few, many in rounds]
        figures.append(Figure(f"{name}, with {count:,} items against 10,000", "times as often", ratios, goal, base))
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--buckets", type=int, default=1_000_000)
    chosen = parser.parse_args()
    found = asyncio.run(measure(chosen.items, chosen.buckets))
    Console(width=None if sys.stdout.isatty() else 160).print(table_of(found))
