"""A claim begins where the pool does, and does not read what was handed out before, though nothing removes that."""

from __future__ import annotations

import asyncpg

from coordinator.model import Demand
from coordinator.store import claims
from coordinator.store.fronts import POOL_START, PoolPlace, find_front
from coordinator.store.pool import Connection, Database
from tests.store.bench import Bench

_READY = """
INSERT INTO bucket (bucket_id, service_id, rank_at, since, priority, settled)
SELECT gen_random_uuid(), $1, now() - make_interval(secs => 10000 - n), now(), 100, B'0'
  FROM generate_series(1, 3000) n"""

# 2,500 were handed out and are done; what was done to them stays where it was.
_HANDED_OUT = """
WITH oldest AS (SELECT bucket_id FROM bucket WHERE service_id = $1 ORDER BY rank_at LIMIT 2500)
UPDATE bucket SET state = 'done', settled = B'1' WHERE bucket_id IN (SELECT bucket_id FROM oldest)"""

_READ = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'bucket_ready'"


async def entries_read(db: Connection) -> int:
    """How many entries of the index of ready buckets have been read by now."""
    await db.execute("SELECT pg_stat_force_next_flush()")
    await db.execute("SELECT pg_stat_clear_snapshot()")
    return int(await db.fetchval(_READ))


async def test_what_was_handed_out_is_not_read_again(bench: Bench, database: Database, dsn: str) -> None:
    ada = await bench.worker("ada")
    await bench.execute(_READY, bench.service)
    old = await asyncpg.connect(dsn)
    async with old.transaction(isolation="repeatable_read"), database.connection() as db:
        await old.fetchval("SELECT count(*) FROM bucket")  # from here on nothing can be removed
        await db.execute(_HANDED_OUT, bench.service)

        async def read_by_claim(start: PoolPlace) -> tuple[int, claims.ClaimedBuckets]:
            before = await entries_read(db)
            handout = await claims.claim(db, bench.service, [ada.demand], bench.boot, bench.settings, start)
            return await entries_read(db) - before, handout

        from_the_beginning, first = await read_by_claim(POOL_START)
        front = await find_front(db, bench.service)
        from_there, second = await read_by_claim(first.first or POOL_START)
        assert (first.seen, second.seen) == (129, 129)
        assert second.first in (front, first.first)
        assert from_the_beginning > 2500
        assert from_there < 300
    await old.close()


async def test_a_claim_looks_for_nothing_before_its_start(bench: Bench) -> None:
    demand: Demand = (await bench.worker("ada")).demand
    before, behind = await bench.bucket(1, age=90), await bench.bucket(1, age=10)
    async with bench.database.connection() as db:
        place = (await bench.of(behind))["rank_at"], (await bench.of(behind))["shuffle"]
        handout = await claims.claim(db, bench.service, [demand, demand], bench.boot, bench.settings, place)
        assert ([claimed.bucket_id for claimed in handout.claimed], handout.first) == ([behind], place)
        row = await bench.of(before)
        assert await find_front(db, bench.service) == (row["rank_at"], row["shuffle"])
