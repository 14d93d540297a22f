"""What the store's statements cost the database, through the store's own functions on a fresh embedded Postgres."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

from coordinator.embedded import EmbeddedPostgres
from coordinator.errors import ConfigError
from coordinator.flow.bucket_builder import BucketBuilder, BuildReason
from coordinator.flow.catalogue import Entry
from coordinator.home import make_ready
from coordinator.model import Claimed, ClientId, Service, ServiceSettings, SessionId
from coordinator.observe.health import WELL
from coordinator.services import load_plugins, tables_of
from coordinator.store import building, claims, clients, health, history, items, migrate, statistics
from coordinator.store.health import Done
from coordinator.store.pool import Connection, Database
from tests.bench.simulation.costs import Costs
from tests.store.bench import Bench, Worker, submit

SIZE = 180
MEMBERS = 50_000
BATCH = 32
_STAT = Path("/proc/self/stat")
_numbers = count()

_CROWD = """
WITH new AS (
    INSERT INTO client (client_id, screen_name) SELECT 'crowd' || n, 'c' FROM generate_series(1, $2::int) n
    RETURNING client_id)
INSERT INTO client_service (client_id, service_id) SELECT client_id, $1 FROM new"""

_POOL = """
INSERT INTO bucket (bucket_id, service_id, rank_at, since, priority, settled)
SELECT gen_random_uuid(), $1, now() + interval '2 days' + interval '10 ms' * (n / 100), now(), 100, B'000'
  FROM generate_series(1, 100000) n"""

_POOL_ITEMS = """
INSERT INTO bucket_items (bucket_id, items, frame)
SELECT bucket_id, ARRAY[1, 2, 3], '[]' FROM bucket WHERE length(settled) = 3"""

# Who comes back has worked for long.
_PAST = """
INSERT INTO claim (claim, bucket_id, service_id, client_id, session_id, boot, given, settled, ended, ended_at)
SELECT nextval('claim_number'), gen_random_uuid(), 1, client_id, gen_random_uuid(), 1, B'111', 3, 'settled', now()
  FROM client CROSS JOIN generate_series(1, 1000) WHERE client_id LIKE 'back%'"""

_LABELS = ("DM", "NON_DM", "UNKNOWN")

# What the last hours saw was as in this one.
_HOURS = """
INSERT INTO client_label (service_id, hour, client_id, label, n)
SELECT service_id, hour - make_interval(hours => h), client_id, label, n
  FROM client_label CROSS JOIN generate_series(1, 5) h"""

_PIDS = "SELECT pid FROM pg_stat_activity"


async def measured() -> Costs:
    """All costs of the database, each from some hundred statements; takes about a minute.

    Raises:
        ConfigError: this system does not tell what a process has used.
    """
    if not _STAT.exists():  # noqa: ASYNC240  # not a disk's
        raise ConfigError("what statements cost is measured where /proc tells what a process has used")
    async with _fresh() as database:
        return await _Measure(database, await Bench.make(database, "cost")).all()


@asynccontextmanager
async def _fresh() -> AsyncIterator[Database]:
    folder = _folder()
    server = EmbeddedPostgres(folder)
    try:
        await asyncio.to_thread(server.start)
        database = Database(server.dsn)
        await database.open()
        await migrate.migrate(database, tables_of(load_plugins()))
        await make_ready(server.dsn, None)
        yield database
        await database.close()
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(folder)


class _Measure:
    """Each method measures one kind of work; the differences of two sizes tell what one more costs."""

    def __init__(self, database: Database, bench: Bench) -> None:
        self._database = database
        self._bench = bench

    async def all(self) -> Costs:
        one = await self._bench.worker("one")
        found: dict[str, float] = {}
        found |= await self._adding()
        found |= await self._making()
        await self._bench.execute("VACUUM (ANALYZE)")
        async with self._database.connection() as db:
            ready = await self._ready(db)
        found |= await self._claims_and_submits(one)
        found |= await self._ways_back(one)
        found |= await self._clock()
        found |= await self._small(one)
        found |= await self._recording()
        found |= await self._looking(one, found["look_ms"])
        found["claim_ms"] -= found["claim_ms_per_1000_ready"] * ready / 1000
        return Costs(**{name: round(max(ms, 0.0), 4) for name, ms in found.items()})

    async def _cost(self, times: int, step: Callable[[], Awaitable[object]]) -> float:
        """Core-milliseconds of all processes of the server, for one step of so many."""
        begun = await self._used()
        for _ in range(times):
            await step()
        return (await self._used() - begun) / times

    async def _used(self) -> float:
        async with self._database.connection() as db:
            pids = [row["pid"] for row in await db.fetch(_PIDS)]
        return sum(map(_used_by, pids))

    async def _adding(self) -> dict[str, float]:
        async def add(size: int) -> None:
            keys = [(f"k{next(_numbers)}", "{}") for _ in range(size)]
            async with self._database.connection() as db:
                await items.add(db, keys, {self._bench.service: 0.0}, 100)
            await self._database.flush()

        small, large = await self._cost(300, lambda: add(1)), await self._cost(400, lambda: add(1000))
        each = (large - small) / 999
        return {"add_ms": small - each, "add_ms_per_1000_items": 1000 * each}

    async def _making(self) -> dict[str, float]:
        """400,000 items wait: the first runs make small buckets of some, the others usual ones of the rest."""
        look = await self._cost(300, lambda: self._look(0, 0))
        async with self._database.connection() as db:
            await db.execute(_CROWD, self._bench.service, MEMBERS)
        builder = BucketBuilder(self._database)
        small = await self._cost(6, lambda: builder.build(self._entry(20), BuildReason.AHEAD))
        await self._bench.execute("UPDATE bucket SET rank_at = rank_at + interval '1 day'")  # the others go first
        usual = await self._cost(16, lambda: builder.build(self._entry(SIZE), BuildReason.AHEAD))
        each = (small - usual) / (900 - 100)
        return {
            "look_ms": look,
            "make_ms_per_bucket": each,
            "make_ms_per_1000_items": max(0.0, usual - look - 100 * each) / 18,
        }

    def _entry(self, size: int) -> Entry:
        nothing: Any = None  # the builder looks at the service alone
        service = Service(self._bench.service, "cost", "dm_check", "cost", "active", ServiceSettings(bucket_size=size))
        return Entry(service, nothing, nothing, {})

    async def _look(self, ready: int, waiting: int) -> None:
        async with self._database.transaction() as db:
            await building.look(db, self._bench.service, ready, waiting)

    async def _looking(self, one: Worker, alone: float) -> dict[str, float]:
        """A node's database is vacuumed now and then, which makes counting cheaper: so it is here."""
        async with self._database.connection() as db:
            few_ready = await self._ready(db)
            await db.execute("VACUUM (ANALYZE)", timeout=300)
            small = await self._cost(200, lambda: self._bench.claim(one))
            await db.execute(_POOL, self._bench.service, timeout=300)
            await db.execute(_POOL_ITEMS, timeout=300)
            await db.execute("VACUUM (ANALYZE)", timeout=300)
            large = await self._cost(100, lambda: self._bench.claim(one))
            ready = await self._ready(db)

            async def pool(for_each: int) -> None:
                await building.look(db, self._bench.service, for_each, 1)

            few, many = await self._cost(300, lambda: pool(0)), await self._cost(300, lambda: pool(1000))
        return {
            "look_ms_per_1000_members": (few - alone) / min(MEMBERS, building.MAX_READY) * 1000,
            "look_ms_per_1000_ready": (many - few) / min(ready, building.MAX_READY) * 1000,
            "claim_ms_per_1000_ready": (large - small) / (ready - few_ready) * 1000,
        }

    async def _ready(self, db: Connection) -> int:
        return int(await db.fetchval("SELECT count(*) FROM bucket WHERE state = 'ready'"))

    async def _claims_and_submits(self, one: Worker) -> dict[str, float]:
        held: list[Claimed] = []

        async def claim(size: int) -> None:
            held.extend(await self._bench.claim(*[one] * size))

        async def settle(size: int, places: slice) -> None:
            taken = held[-size:]
            await self._bench.settle(*(submit(each, each.items[places], final=False) for each in taken))
            del held[-size:]

        claim_one, claim_many = await self._cost(250, lambda: claim(1)), await self._cost(20, lambda: claim(BATCH))
        few = slice(0, 5)
        submit_one = await self._cost(200, lambda: settle(1, few))
        submit_few = await self._cost(20, lambda: settle(BATCH, few))
        held.clear()
        await claim(10 * BATCH)
        submit_many = await self._cost(10, lambda: settle(BATCH, slice(0, None)))
        bucket = (claim_many - claim_one) / (BATCH - 1)
        item = (submit_many - submit_few) / BATCH / (SIZE - 5)
        per_submit = (submit_few - submit_one) / (BATCH - 1) - 5 * item
        return {
            "claim_ms": claim_one - bucket,
            "claim_ms_per_bucket": bucket,
            "submit_ms": submit_one - per_submit - 5 * item,
            "submit_ms_per_bucket": per_submit,
            "submit_ms_per_1000_items": 1000 * item,
        }

    async def _ways_back(self, one: Worker) -> dict[str, float]:
        async def claimed(size: int) -> Worker:
            worker = Worker(one.client_id, SessionId(uuid4()))
            await self._bench.forgive()
            await self._bench.claim(*[worker] * size)
            return worker

        async def cut_off(size: int) -> float:
            workers = [await claimed(size) for _ in range(150)]
            each = iter(workers)
            return await self._cost(150, lambda: self._bench.cut_off(next(each)))

        few, many = await cut_off(1), await cut_off(5)
        back = [await self._bench.worker(f"back{n}") for n in range(60)]
        await self._bench.execute(_PAST)
        for worker in back:
            await self._bench.claim(worker)
        for worker in back:
            await self._bench.cut_off(worker)
        each = iter(back)
        again = await self._cost(60, lambda: self._bench.recollect(next(each)))
        return {
            "release_ms": few - (many - few) / 4,
            "release_ms_per_bucket": (many - few) / 4,
            "recollect_ms": again,
        }

    async def _clock(self) -> dict[str, float]:
        service = self._bench.service

        async def look() -> None:
            async with self._database.connection() as db:
                await claims.mark_dead(db, service, 7200.0)
                await claims.release_dead(db, service, 900.0, 120.0)
                await clients.make_idle(db, service, 604_800.0, [])
                await claims.release_kept(db)
                await building.retire(db)
                await clients.purge_sessions(db)
            async with self._database.transaction() as db:
                await building.try_lock(db, service)
                await building.due_for_split(db, service, 20)

        async def retire() -> None:
            async with self._database.connection() as db:
                await building.retire(db, 50)

        done = await self._bench.value("SELECT count(*) FROM bucket WHERE state = 'done' AND indexed")
        times = max(1, done // 50)
        retired = await self._cost(times, retire)
        looked = await self._cost(200, look)
        return {"clock_ms": looked, "retire_ms_per_bucket": retired / 50}

    async def _small(self, one: Worker) -> dict[str, float]:
        service, boot = self._bench.service, self._bench.boot

        async def session() -> None:
            new = SessionId(uuid4())
            async with self._database.connection() as db:
                await clients.find(db, one.client_id)
                await clients.find(db, one.client_id)
                await clients.memberships(db, one.client_id)
                await clients.counters(db, one.client_id)
                await clients.begin_session(db, new, one.client_id, boot, "", None)
                await clients.end_sessions(db, [new])

        async with self._database.connection() as db:

            async def held() -> None:
                await claims.held_count(db, one.client_id, service)

            async def report() -> None:
                await clients.report(db, ClientId("crowd1"), service, 1.0)

            async def write() -> None:
                await db.execute("SELECT pg_logical_emit_message(true, 'measure', '')")

            small = (await self._cost(1000, held) + await self._cost(1000, report)) / 2
            waited = await _seconds(300, write)
            await db.execute("SET synchronous_commit = 'off'")
            waited -= await _seconds(300, write)
            await db.execute("SET synchronous_commit = 'on'")
        return {
            "session_ms": await self._cost(300, session) / 2,
            "small_ms": small,
            "commit_ms": 1000 * waited,
        }

    async def _recording(self) -> dict[str, float]:
        """What the recorder writes each second, and the comparison of clients that follows, with some hours of both."""
        service = self._bench.service

        async def record(size: int) -> None:
            names = [ClientId(f"crowd{n}") for n in range(1, size + 1)]
            async with self._database.transaction() as db:
                done = {(one, service): Done(True, 1, 1, SIZE, 0, 0, 0, 1, 1.0, SIZE) for one in names}
                await health.count(db, done, WELL)
                await health.count_labels(db, [(service, one, label, 60) for one in names for label in _LABELS])
                await history.add(db, [(service, (SIZE, 1, 0, 0, 0, 0))])
                await history.add_days(db, [(one, service, SIZE) for one in names])
            async with self._database.connection() as db:
                await statistics.fold(db)

        async def compare() -> None:
            async with self._database.connection() as db:
                await health.peers(db, service, [ClientId(f"crowd{n}") for n in range(1, 201)])

        few, many = await self._cost(200, lambda: record(1)), await self._cost(50, lambda: record(200))
        await self._bench.execute(_HOURS)
        each = (many - few) / 199
        return {
            "record_ms": few - each,
            "record_ms_per_client": each,
            "compare_ms": await self._cost(50, compare),
        }


async def _seconds(times: int, step: Callable[[], Awaitable[object]]) -> float:
    begun = perf_counter()
    for _ in range(times):
        await step()
    return (perf_counter() - begun) / times


def _folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="coordinator-cost-", dir="/tmp"))
    made.chmod(0o755)  # the account that Postgres runs as is to reach it
    return made


def _used_by(pid: int) -> float:
    """Milliseconds of a core; none if the process is gone."""
    try:
        fields: Sequence[str] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
