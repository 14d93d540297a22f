"""What the hot statements cost as the work grows: `python -m tests.bench.at_scale [--items N] [--buckets N]`.

Fills a fresh embedded Postgres with 10 thousand, then with N waiting items (default 10 million) and N buckets (default
1 million, nearly all done), looks at the plans of all hot statements in both, and prints the medians of some, and
their ratio.  Takes some minutes and
some gigabytes, and cleans up behind itself.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import uuid4

import asyncpg
from rich.console import Console
from rich.table import Table

from coordinator.embedded import EmbeddedPostgres
from coordinator.home import make_ready
from coordinator.model import Boot, ClientId, Demand, ServiceId, SessionId
from coordinator.services import load_plugins, tables_of
from coordinator.store import claims, items, migrate
from coordinator.store.making import START
from coordinator.store.pool import Connection, Database
from tests.store.test_plans import bad_plans

ROUNDS = 101

_FILL = """
INSERT INTO client (client_id, screen_name) SELECT 'c' || n, 'c' FROM generate_series(1, 16) n;
INSERT INTO client_service (client_id, service_id) SELECT client_id, 1 FROM client;
INSERT INTO item (key) SELECT 'k' || n FROM generate_series(1, {items}) n;
INSERT INTO waiting (service_id, item_id, rank_at, since, priority)
SELECT 1, item_id, now() + interval '1 ms' * item_id, now(), 100 FROM item;
INSERT INTO bucket (bucket_id, service_id, state, rank_at, since, priority, settled, claim, indexed)
SELECT gen_random_uuid(), 1, CASE WHEN n % 50 = 0 THEN 'ready' ELSE 'done' END, now() - interval '1 s' * n, now(), 100,
       CASE WHEN n % 50 = 0 THEN B'000' ELSE B'111' END, 0, n % 50 = 0
  FROM generate_series(1, {buckets}) n;
INSERT INTO bucket_items (bucket_id, items, frame, open)
SELECT bucket_id, ARRAY[1, 2, 3], '[]', false FROM bucket;
"""

Probe = Callable[[Connection], Awaitable[object]]


async def _median(db: Connection, probe: Probe) -> float:
    """Milliseconds."""
    times = []
    for _ in range(ROUNDS):
        begun = perf_counter()
        await probe(db)
        times.append(perf_counter() - begun)
    return median(times) * 1000


async def _measure(dsn: str, count: int) -> dict[str, float]:
    database = Database(dsn, size=2)
    await database.open()
    service, boot, session = ServiceId(1), Boot(1), SessionId(uuid4())
    demands = [Demand(ClientId(f"c{n}"), session) for n in range(1, 17)]
    async with database.connection() as db:
        last = await db.fetchrow("SELECT rank_at, item_id FROM waiting ORDER BY rank_at DESC OFFSET 101 LIMIT 1")

        async def claim_and_free(db: Connection) -> None:
            for one in (await claims.claim(db, service, demands, boot)).claimed:
                await claims.release_claim(db, one.bucket_id, one.claim, claims.UNDELIVERED, 120.0)

        found = {
            "first page of the waiting list": await _median(db, lambda db: items.waiting(db, service, START, 100)),
            "last page of the waiting list": await _median(
                db, lambda db: items.waiting(db, service, (last["rank_at"], last["item_id"]), 100)
            ),
            "one claim and its release": await _median(db, claim_and_free) / 16,
            "dead-marking, nothing due": await _median(db, lambda db: claims.mark_dead(db, service, 7200.0)),
            "end of a session that holds nothing": await _median(
                db, lambda db: claims.release_session(db, ClientId("c1"), SessionId(uuid4()), claims.CUT_OFF, 120.0, [])
            ),
        }
        bad = await bad_plans(db)
        assert not bad, f"with {count:,} items: {bad}"
    await database.close()
    return found


async def _filled(server: EmbeddedPostgres, count: int, buckets: int) -> dict[str, float]:
    head, _, query = server.dsn.partition("?")
    dsn = f"{head.rsplit('/', 1)[0]}/scale_{count}?{query}"
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"CREATE DATABASE scale_{count}")
    await admin.close()
    database = Database(dsn, size=2)
    await database.open()
    await migrate.migrate(database, tables_of(load_plugins()))
    await database.close()
    await make_ready(dsn, None)
    filler = await asyncpg.connect(dsn)
    for statement in _FILL.format(items=count, buckets=buckets).split(";"):
        if statement.strip():
            await filler.execute(statement, timeout=1800)
    await filler.execute("VACUUM ANALYZE", timeout=1800)
    await filler.close()
    return await _measure(dsn, count)


async def _main(folder: Path, count: int, buckets: int) -> None:
    server = EmbeddedPostgres(folder, {"max_wal_size": "8GB"})
    try:
        await asyncio.to_thread(server.start)
        small = await _filled(server, 10_000, 10_000)
        large = await _filled(server, count, buckets)
        table = Table("statement (median of 101, ms)", "10,000 items", f"{count:,} items", "ratio")
        for name, before in small.items():
            table.add_row(name, f"{before:.2f}", f"{large[name]:.2f}", f"{large[name] / before:.2f}")
        Console().print(table)
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--buckets", type=int, default=1_000_000)
    chosen = parser.parse_args()
    made = Path(tempfile.mkdtemp(prefix="coordinator-scale-", dir="/tmp"))
    made.chmod(0o755)
    asyncio.run(_main(made, chosen.items, chosen.buckets))
