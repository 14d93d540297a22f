"""Cost of large requests of admins for those who work: `python -m tests.bench.admin_at_scale [--items N]`.

On a fresh embedded Postgres with a catalogue of N items (default 10 million), eight clients work on one service at
their pace.  Measured beside them: adding a service that takes the whole catalogue, then taking back and giving back N
results of another one.  Printed are how long each took, and how long the clients' asks and submits took in between,
against before.  Takes some minutes and some gigabytes, and cleans up behind itself.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres
from coordinator.observe import logs
from coordinator.services import load_plugins, tables_of
from coordinator.store import migrate
from coordinator.store.pool import Database
from tests.bounded import within
from tests.harness import Admin, Server, Volunteer

CLIENTS = 8
BEFORE = 10.0
"""Seconds of work without anything beside it."""

LEAST = 2.0
"""Seconds that the clients' work is looked at, however quick the step was."""

WORK = 1_000_000
"""Items of the service that the clients work on, in buckets of 20."""

PACE = 0.1
"""Seconds that a client takes for a bucket."""

_CATALOGUE = """
INSERT INTO item (key) SELECT 'k' || n FROM generate_series(1, {items}) n;
SELECT put_waiting(service_id, enrol(service_id, ARRAY (SELECT item_id FROM item WHERE item_id <= {work})),
                   now(), now(), 100)
  FROM service WHERE name = 'dm_check';
VACUUM ANALYZE"""

# As if one client had settled the whole catalogue in a service of its own, in buckets of 180.
_RESULTS = """
CREATE TEMP TABLE made AS
SELECT gen_random_uuid() AS bucket_id, n AS number, nextval('claim_number') AS claim_id,
       (SELECT service_id FROM service WHERE name = 'old') AS service_id
  FROM generate_series(0, ({items} - 1) / 180) n;
SELECT cardinality(enrol(service_id, ARRAY (SELECT item_id FROM item))) FROM service WHERE name = 'old';
INSERT INTO bucket (bucket_id, service_id, state, rank_at, since, priority, settled, claim_id, indexed)
SELECT bucket_id, service_id, 'done', now(), now(), 100, repeat('1', 180)::varbit, claim_id, false FROM made;
INSERT INTO bucket_items (bucket_id, items)
SELECT bucket_id, ARRAY(SELECT generate_series(number * 180 + 1, number * 180 + 180)::bigint) FROM made;
INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given, settled, begun_at, ended_at,
                   ended)
SELECT claim_id, bucket_id, service_id, 'liar', gen_random_uuid(), 1, repeat('1', 180)::varbit, 180,
       now() - interval '1 hour', now() - interval '1 minute', 'settled' FROM made;
INSERT INTO result (item_id, service_id, claim_id, at, value)
SELECT i.item_id, m.service_id, m.claim_id, now() - interval '2 minutes', '{{"dm": "DM"}}'
  FROM item i JOIN made m ON m.number = (i.item_id - 1) / 180;
VACUUM ANALYZE"""


async def _fill(dsn: str, statements: str) -> None:
    filler = await asyncpg.connect(dsn)
    try:
        for statement in statements.split(";"):
            await filler.execute(statement, timeout=3600)
    finally:
        await filler.close()


class Work:
    """Clients that ask and submit while something is measured; the times of both, in milliseconds."""

    def __init__(self) -> None:
        self.asks: list[float] = []
        self.submits: list[float] = []
        self._on = asyncio.Event()

    async def go_on(self, client: Volunteer) -> None:
        """Ask and submit until cancelled."""
        while True:
            await self._on.wait()
            begun = perf_counter()
            await client.ok("ask", service="dm_check", count=1)
            while (bucket := await client.pushes.get())["type"] == "service":
                pass  # it hears of the services that are added meanwhile
            self.asks.append((perf_counter() - begun) * 1000)

            await asyncio.sleep(PACE)
            begun = perf_counter()
            assert (await client.submit(bucket))["closed"] is True
            self.submits.append((perf_counter() - begun) * 1000)

    async def beside(self, name: str, step: Awaitable[Any]) -> tuple[str, ...]:
        """Return a row of the table: how long the clients' asks and submits took while that step went on."""
        self.asks.clear()
        self.submits.clear()
        self._on.set()
        begun = perf_counter()
        await step
        taken = perf_counter() - begun

        await asyncio.sleep(LEAST - taken)
        worked = perf_counter() - begun
        self._on.clear()
        both = [f"{median(times):.1f} / {quantiles(times, n=100)[98]:.1f}" for times in (self.asks, self.submits)]
        return name, f"{taken:.2f}", f"{len(self.submits) / worked:.0f}", *both


async def _filled(database: Database, service: str) -> None:
    async with database.connection() as db:
        number = await db.fetchval("SELECT service_id FROM service WHERE name = $1", service)
        filling = True
        while filling:
            await asyncio.sleep(0.5)
            filling = await db.fetchval("SELECT EXISTS (SELECT FROM service_fill WHERE service_id = $1)", number)


async def _measure(server: Server, admin: Admin, count: int, dsn: str) -> Table:
    table = Table("beside it", "seconds", "buckets/s", "ask, ms (median / p99)", "submit, ms (median / p99)")
    work = Work()
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 20})
    clients = [await server.volunteer(f"v{n}") for n in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work.go_on(client)) for client in clients]
        table.add_row(*await work.beside("nothing", asyncio.sleep(BEFORE)))
        await admin.ok("service.add", service="large", plugin="dm_check")
        table.add_row(*await work.beside(f"a service filled with {count:,} items", _filled(server.database, "large")))
        await admin.ok("service.add", service="old", plugin="dm_check")
        await admin.ok("service.revoke", service="old")
        await _fill(dsn, _RESULTS.format(items=count))
        table.add_row(*await work.beside("nothing", asyncio.sleep(BEFORE)))
        taken: dict[str, Any] = {}

        async def ask(kind: str, **fields: Any) -> None:
            # An admin may wait for minutes; the harness' patience is for answers that come at once.
            answer = await within(admin.send(kind, **fields), 600)
            assert answer["type"] == "ok", answer
            assert answer["count"] == count, answer
            taken.update(answer)

        rows = f"{count:,} results"
        table.add_row(
            *await work.beside(f"counting {rows}", ask("result.invalidate", service="old", dry_run=True, requeue=False))
        )
        invalidate = ask("result.invalidate", service="old", dry_run=False, requeue=False)
        table.add_row(*await work.beside(f"taking back {rows}", invalidate))
        reinstate = ask("result.reinstate", invalidation_id=taken["invalidation_id"])
        table.add_row(*await work.beside(f"giving back {rows}", reinstate))
        begun = perf_counter()
        table.add_row(*await work.beside(f"exporting {rows} by the command", _export(server, count)))
        exported = f"{count / (perf_counter() - begun):,.0f} rows/s"
        requeue = ask("result.invalidate", service="old", dry_run=False, requeue=True)
        table.add_row(*await work.beside(f"taking back {rows}, requeued", requeue))
        table.add_row(*await work.beside("the requeuing that goes on behind it", asyncio.sleep(BEFORE)))
        for task in tasks:
            task.cancel()
    table.caption = f"exported: {exported} (goal: 50,000)"
    return table


async def _export(server: Server, count: int) -> None:
    """Export all results by the real command in a process of its own."""
    words = "result", "export", "old", "--format", "csv", "--server", server.url, "--token", await server.token()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coordinator", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None

    lines = 0
    while part := await process.stdout.read(1 << 20):
        lines += part.count(b"\n")
    assert await process.wait() == 0
    assert lines == count + 1, lines


async def _main(folder: Path, count: int) -> None:
    embedded = EmbeddedPostgres(folder, {"max_wal_size": "8GB"})
    try:
        await asyncio.to_thread(embedded.start)
        async with AsyncExitStack() as stack:
            database = Database(embedded.dsn, size=2)
            await database.open()
            stack.push_async_callback(database.close)
            await migrate.migrate(database, tables_of(load_plugins()))

            settings = Settings(port=0, ops_port=0, data=folder / "node", database=embedded.dsn)
            node = await stack.enter_async_context(Node(settings))
            await _fill(embedded.dsn, _CATALOGUE.format(items=count, work=min(count, WORK)))
            server = Server(node, database, stack)
            Console().print(await _measure(server, await server.admin(), count, embedded.dsn))
    finally:
        await asyncio.to_thread(embedded.stop)
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000_000)
    chosen = parser.parse_args()
    logs.configure("console", "warning")
    made = Path(tempfile.mkdtemp(prefix="coordinator-scale-", dir="/tmp"))
    made.chmod(0o755)
    asyncio.run(_main(made, chosen.items // 180 * 180))
