"""Waits in Postgres, and what a bucket costs there by count, while daemons settle buckets that are made meanwhile.

Every wait for a lock of more than a few milliseconds is in the log of Postgres; what else its backends wait for is
sampled.  All is counted with one, two and four processes of the node: if a bucket takes as many transactions, pages and
bytes of the log with four as with one, the processes share nothing but Postgres itself, which these counts show on a
machine of any size.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from operator import truediv
from time import perf_counter
from typing import NamedTuple

import asyncpg

from tests.bench.figures import Figure
from tests.bench.rows import SIZE
from tests.bench.throughput import Daemons, bare_copy
from tests.bench.world import World

PROCESSES = (1, 2, 4)

LONGEST_LOCK_WAIT_MS = 5
SAMPLE_EVERY = 0.005
STATISTICS_LATE = 1.1
"""Seconds from a transaction until it is surely in Postgres' statistics, if its backend has nothing else to do."""

_LOG_WAITS = f"""
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''{LONGEST_LOCK_WAIT_MS}ms''', current_database());
    EXECUTE format('ALTER DATABASE %I SET log_lock_waits = on', current_database());
END $$"""

_WAITS = """
SELECT coalesce(wait_event_type || ': ' || wait_event, 'running') AS wait, count(*)
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active' GROUP BY 1"""

_COUNTS = """
SELECT array[xact_commit + xact_rollback, blks_hit + blks_read, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')]
         ::float8[]
  FROM pg_stat_database WHERE datname = current_database()"""

TOLD = 8
"""Waits that are told by name: those that were seen most."""


COUNTING = "INSERT INTO history"
"""How the statement begins by which nodes add what they counted to the same rows: nobody waits for its end."""

SHOWN_OF_WAIT = 800
"""Characters of the log in which a wait and its statement stand."""


class LockWaits(NamedTuple):
    """Waits for locks of the statements that do the work, and of those that count it."""

    work: float
    counting: float


@dataclass
class Found:
    """Counts with one number of processes, one for each round."""

    lock_waits: list[LockWaits] = field(default_factory=list)
    transactions: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    copied: list[float] = field(default_factory=list)
    waits: list[Counter[str]] = field(default_factory=list)


async def measure(world: World, rounds: int, buckets: int) -> list[Figure]:
    """Measure on connections that log their waits."""
    await world.sql(_LOG_WAITS)
    await _make_one_wait(world)

    figures = []
    for processes in PROCESSES:
        await world.stop()
        await world.start(flags=("--processes", str(processes)))
        figures += _figures(processes, await _count(world, rounds, buckets))
    return figures


async def _count(world: World, rounds: int, buckets: int) -> Found:
    found = Found()
    async with AsyncExitStack() as stack:
        daemons = await Daemons.start(world, 16, stack)
        for number in range(rounds + 1):  # the first one warms up
            await world.wait_items("dm_check", (buckets + 400) * SIZE)
            before = await world.sql(_COUNTS)
            await bare_copy(world, buckets)
            copied = await _counted(world, before)
            await world.sql("TRUNCATE result")

            before, lines = await world.sql(_COUNTS), await _lock_waits(world)
            async with _Samples(world) as samples:
                await daemons.run(world, buckets)
            transactions, pages, written = await _counted(world, before)
            if number:
                # Each sample is a transaction, too.
                found.transactions.append((transactions - samples.taken) / buckets)
                found.pages.append(pages / buckets)
                found.written.append(written / buckets / SIZE)
                found.copied.append(copied[2] / buckets / SIZE)
                after = await _lock_waits(world)
                found.lock_waits.append(LockWaits(after.work - lines.work, after.counting - lines.counting))
                found.waits.append(samples.seen)
    return found


def _figures(processes: int, found: Found) -> list[Figure]:
    of = f"{processes} process{'' if processes == 1 else 'es'}"
    names = [name for name, _ in sum(found.waits, Counter()).most_common(TOLD)]
    return [
        Figure(
            f"{of}: waits for a lock of {LONGEST_LOCK_WAIT_MS} ms and more", "a round",
            [waits.work for waits in found.lock_waits], "<= 0",
        ),
        Figure(
            f"{of}: such waits of nodes that add up their counts", "a round",
            [waits.counting for waits in found.lock_waits],
        ),
        Figure(f"{of}: transactions", "a bucket", found.transactions),
        Figure(f"{of}: pages touched", "a bucket", found.pages),
        Figure(f"{of}: bytes of the write-ahead log, made meanwhile", "bytes/item", found.written),
        Figure(f"{of}: bytes of the write-ahead log, bare COPY", "bytes/item", found.copied),
        Figure(
            f"{of}: bytes of the log against bare COPY", "times",
            list(map(truediv, found.written, found.copied)), "<= 2.5",
        ),
        *(
            Figure(f"{of}: active backends: {name}", "of all", [seen[name] / seen.total() for seen in found.waits])
            for name in names
        ),
    ]  # fmt: skip


async def _counted(world: World, before: Sequence[float]) -> list[float]:
    """Count transactions, pages and bytes of the log since then; idle backends tell of theirs after a second."""
    await asyncio.sleep(STATISTICS_LATE)
    return [now - then for now, then in zip(await world.sql(_COUNTS), before, strict=True)]


async def _make_one_wait(world: World) -> None:
    """See that a wait comes into the log."""
    lines = await _lock_waits(world)
    first, second = await asyncpg.connect(world.dsn), await asyncpg.connect(world.dsn)
    async with first.transaction():
        await first.execute("LOCK TABLE service")
        waiting = asyncio.ensure_future(second.execute("BEGIN; LOCK TABLE service; COMMIT"))
        await asyncio.sleep(10 * LONGEST_LOCK_WAIT_MS / 1000)
    await waiting
    await first.close()
    await second.close()
    assert (await _lock_waits(world)).work > lines.work


async def _lock_waits(world: World) -> LockWaits:
    """Count the waits for locks until now."""
    text = await asyncio.to_thread((world.folder / "postgres.log").read_text)
    # The statement that waited stands two or three entries behind the wait.
    waits = [wait[:SHOWN_OF_WAIT] for wait in text.split("still waiting for")[1:]]
    counting = sum(COUNTING in wait for wait in waits)
    return LockWaits(len(waits) - counting, counting)


class _Samples:
    """Samples of the waits of active backends, taken many times a second."""

    def __init__(self, world: World) -> None:
        self.seen: Counter[str] = Counter()
        self.taken = 0
        self._world = world
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Samples:
        db = await asyncpg.connect(self._world.dsn)
        self._task = asyncio.create_task(self._run(db))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self, db: asyncpg.Connection) -> None:
        try:
            while True:
                begun = perf_counter()
                self.taken += 1
                for row in await db.fetch(_WAITS):
                    self.seen[row["wait"]] += row["count"]
                await asyncio.sleep(max(0.0, SAMPLE_EVERY - (perf_counter() - begun)))
        finally:
            db.terminate()
