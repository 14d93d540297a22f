"""A transaction that is left open, and long readers: vacuum may remove nothing, while clients work at a steady rate."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import asyncpg

from tests.bench.figures import Figure, percentile
from tests.bench.peer import Peer, submission, volunteer
from tests.bench.world import World

CLIENTS = 16
RATE = 50.0
"""Buckets a second that all clients take and settle together."""

ITEMS = 10
"""Items of a bucket: what is handed out and given back are buckets, so few items do."""

READERS = 4
READ_FOR = 20.0
"""Seconds that each reader lasts; they overlap."""

BACK_WITHIN = 30.0
"""Seconds after the end in which all is to be as before."""

_FEW_ITEMS = f"""
UPDATE service SET settings = settings || '{{"bucket_size": {ITEMS}, "newcomer_buckets": 20}}'
 WHERE name = 'dm_check'"""

# As adding them by and by does: each thousand has a rank of its own.
_SPREAD = """
DO $$
DECLARE ids bigint[] := ARRAY (SELECT w.item_id FROM waiting_item w ORDER BY w.item_id);
        of_service integer := (SELECT service_id FROM service WHERE name = 'dm_check');
        n integer := cardinality(ids);
BEGIN
    TRUNCATE waiting;
    FOR at IN 0..(n - 1) / 1000 LOOP
        PERFORM put_waiting(of_service, ids[at * 1000 + 1:least(n, at * 1000 + 1000)],
                            now() - make_interval(secs => 9000 - at), now() - make_interval(secs => 9000 - at), 100);
    END LOOP;
END $$"""

# What handing out so many buckets leaves where the pool began, all at once.
_LEAVE_DEAD = """
WITH gone AS (SELECT service_id FROM service WHERE name = 'dm_check')
INSERT INTO bucket (bucket_id, service_id, rank_at, since, priority, settled)
SELECT gen_random_uuid(), service_id, now() - interval '1 day', now(), 100, B'0'
  FROM gone CROSS JOIN generate_series(1, {})"""

_DELETE_THEM = "DELETE FROM bucket WHERE state = 'ready' AND rank_at < now() - interval '12 hours'"

_DEAD_ROWS = "SELECT n_dead_tup::float8 FROM pg_stat_user_tables WHERE relname = 'bucket'"


@dataclass(slots=True)
class Phase:
    """A phase: when each bucket was stored, how long each ask took, and what was seen each second."""

    seconds: float = 0.0
    asks: list[float] = field(default_factory=list)
    stored: int = 0
    claim_ms: list[float] = field(default_factory=list)
    dead_rows: list[float] = field(default_factory=list)

    def p99(self) -> float:
        return percentile(self.asks, 0.99) * 1000


class Load:
    """Clients that take a bucket and settle it, each so often that all together keep to the rate."""

    def __init__(self, world: World, peers: Sequence[Peer]) -> None:
        self._world = world
        self._peers = peers
        self.phase = Phase()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work in the background."""
        tasks = [asyncio.create_task(self._work(peer, n)) for n, peer in enumerate(self._peers)]
        yield
        for task in tasks:
            if not task.done():
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def watch(self, seconds: float) -> Phase:
        """Note what happens for some seconds."""
        phase = self.phase = Phase(seconds)
        db = await asyncpg.connect(self._world.dsn)
        before = await self._claims()
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            now = await self._claims()
            calls = now[0] - before[0]
            phase.claim_ms.append((now[1] - before[1]) / calls * 1000 if calls else 0.0)
            phase.dead_rows.append(await db.fetchval(_DEAD_ROWS))
            before = now
        await db.close()
        return phase

    async def _work(self, peer: Peer, number: int) -> None:
        interval = len(self._peers) / RATE
        due = perf_counter() + interval * number / len(self._peers)
        while True:
            await asyncio.sleep(max(0.0, due - perf_counter()))
            due += interval
            phase, begun = self.phase, perf_counter()
            await peer.send("ask", service="dm_check", count=1)
            bucket = await peer.until("bucket")
            phase.asks.append(perf_counter() - begun)
            await peer.send("submit", **submission(bucket))
            await peer.until("stored")
            phase.stored += 1

    async def _claims(self) -> tuple[float, float]:
        """How often the node has claimed, and the seconds that took."""
        text = await asyncio.to_thread(_metrics, self._world.ops_url)
        found = re.findall(r'coordinator_statement_(calls|seconds)_total\{statement="claims.claim"\} (\S+)', text)
        figures = dict(found)
        return float(figures.get("calls", 0)), float(figures.get("seconds", 0))


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        return str(answer.read().decode())


@asynccontextmanager
async def held_snapshots(world: World) -> AsyncIterator[None]:
    """One transaction that has written and is left open, and readers that see what was there when they began."""
    async with AsyncExitStack() as stack:
        writer = await asyncpg.connect(world.dsn)
        stack.push_async_callback(writer.close)
        await writer.execute("BEGIN; SELECT pg_logical_emit_message(true, 'held', '')")
        readers = [asyncio.create_task(_read(world, n * READ_FOR / READERS)) for n in range(READERS)]
        yield
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
        await writer.execute("ROLLBACK")


async def _read(world: World, begin_after: float) -> None:
    await asyncio.sleep(begin_after)
    db: Any = await asyncpg.connect(world.dsn)
    try:
        while True:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                end = perf_counter() + READ_FOR
                while perf_counter() < end:
                    await db.fetchval("SELECT count(*) FROM claim WHERE ended IS NULL")
                    await asyncio.sleep(1)
    finally:
        db.terminate()


async def measure(world: World, clean: float, held: float, dead: int) -> list[Figure]:
    """Measure before, while snapshots are held for so many seconds, and after.

    `dead` is how many buckets were handed out in the same snapshots before: the short form does not wait for them.
    """
    await world.stop()
    await world.sql(_FEW_ITEMS)
    await world.start()
    names = [f"held{n}" for n in range(CLIENTS)]
    await world.register(names)
    await world.wait_items("dm_check", int((clean + held + 2 * BACK_WITHIN) * RATE * ITEMS * 1.2))
    await world.sql(_SPREAD)

    peers = [await volunteer(world.url, name) for name in names]
    load = Load(world, peers)
    async with load.working():
        await load.watch(5)  # warms up
        before = await load.watch(clean)
        async with held_snapshots(world):
            await world.sql("SET lock_timeout = '5s'", "BEGIN", _LEAVE_DEAD.format(dead), _DELETE_THEM, "COMMIT")
            during = await load.watch(held)
        await load.watch(BACK_WITHIN - 10)
        after = await load.watch(10)
    for peer in peers:
        await peer.close()
    await world.sql("UPDATE service SET settings = settings - '{bucket_size,newcomer_buckets}'::text[]")
    return _figures(before, during, after)


def _figures(before: Phase, during: Phase, after: Phase) -> list[Figure]:
    last = during.asks[-len(before.asks) :]  # as many as before, at the end
    rate = during.stored / during.seconds / (before.stored / before.seconds)
    return [
        Figure("snapshots held: buckets/s against before", "times", [rate], ">= 0.9"),
        Figure("ask -> bucket p99 against before", "times", [during.p99() / before.p99()], "<= 2",
               f"{during.p99():.1f} against {before.p99():.1f} ms"),
        Figure("the same at the end of that", "times", [percentile(last, 0.99) * 1000 / before.p99()], "<= 2"),
        Figure(f"the same {BACK_WITHIN:.0f} s after", "times", [after.p99() / before.p99()], "<= 1.5"),
        Figure("the claim statement, before, each second", "ms", before.claim_ms),
        Figure("the claim statement, snapshots held, each second", "ms", during.claim_ms,
               note=f"in the last ten: {sum(during.claim_ms[-10:]) / 10:.2f}"),
        Figure("the claim statement, after", "ms", after.claim_ms),
        Figure("dead rows of bucket, snapshots held, each second", "rows", during.dead_rows),
    ]  # fmt: skip
