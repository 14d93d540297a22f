"""A year of one service, with time compressed: `python -m tests.bench.year [--items N] [--quarters N]`.

All items are checked once and then, each quarter, again, a tenth of them by clients that submit a bucket in ten parts;
strangers register and go, buckets are given back, hours and events are noted, and what grows is pruned as the node does
it.  Between two quarters every time that is stored is moved
91 days back.  The table at the end has the bytes of each table on disk, by quarter.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from coordinator.embedded import EmbeddedPostgres
from coordinator.flow.pruner import Pruner
from coordinator.prepare import prepare_database
from coordinator.store import activity, adding, boards, building, events, history, rechecks, statistics
from coordinator.store.pool import Database
from tests.bench.world import folder_for_postgres
from tests.store.bench import Bench, Worker, submit

FURTHER = 160.0
"""Bytes on disk that each further result of an item may take, with all that belongs to it."""

FLAT = 1.2
"""By how much they may grow from the second quarter on."""

WORKERS, SIZE, AT_ONCE = 16, 180, 16
PARTS = 10
"""Of so many buckets one is submitted in so many parts."""
QUARTER = "91 days"

_SIZES = """
SELECT coalesce(parent.relname, c.relname) AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
 WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY 1 ORDER BY 1"""

_TIMES = """
SELECT c.relname, array_agg(a.attname::text) AS columns, array_agg(a.atttypid::regtype::text) AS types
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
   AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN ('timestamptz'::regtype, 'date'::regtype)
   AND c.relname NOT IN ('migration', 'item', 'result', 'service', 'bucket', 'waiting', 'history')
 GROUP BY 1 ORDER BY 1"""

_STRANGERS = """
WITH new AS (
    INSERT INTO client (client_id, screen_name) SELECT $1 || n, 'stranger' FROM generate_series(1, $2::int) n
    RETURNING client_id),
joined AS (INSERT INTO membership (client_id, service_id) SELECT client_id, $3 FROM new)
INSERT INTO session (session_id, client_id, boot, address, ended_at)
SELECT gen_random_uuid(), client_id, $4, '192.0.2.1', now() FROM new"""

_HOURS = """
INSERT INTO history (step, at, service_id, settled)
SELECT 'hour', date_trunc('hour', now()) - make_interval(hours => n), $1, 1000
  FROM generate_series(24 * 91 * $2::int + 1, 24 * 91 * ($2::int + 1)) n"""


_LINES = """
INSERT INTO activity (who, action, outcome)
SELECT $1 || n, 'client.register', 'ok' FROM generate_series(1, $2::int) n"""


@dataclass(frozen=True, slots=True)
class Quarter:
    """The end of a quarter: results that are stored, and the bytes of each table."""

    results: int
    tables: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.tables.values())


class Year:
    """Plays on a bench, quarter by quarter."""

    def __init__(self, bench: Bench, items: int) -> None:
        self._bench = bench
        self._items = items // SIZE * SIZE
        self._pruner = Pruner(SimpleNamespace(database=bench.database))  # type: ignore[arg-type]  # all that it takes
        self._workers: list[Worker] = []

    async def play(self, quarters: int) -> list[Quarter]:
        """Play so many quarters; the end of each."""
        self._workers = [await self._bench.worker(f"worker{n}") for n in range(WORKERS)]
        for start in range(0, self._items, 18_000):
            count = min(18_000, self._items - start)
            async with self._bench.database.transaction() as db:
                added = await adding.add_new(db, [(f"account{start + n:08}", None, "{}") for n in range(count)])
                await adding.join_new(db, self._bench.service, added, 100, 0.0)

        ends = []
        for number in range(quarters):
            await self._strangers(number)
            await self._work()
            ends.append(await self._end())
            await self._later()
            await self._recheck()
        return ends

    async def _strangers(self, quarter: int) -> None:
        """A twentieth as many as there are items come, settle nothing and go; the log and the history grow."""
        bench, count = self._bench, self._items // 20
        await bench.execute(_STRANGERS, f"stranger{quarter}-", count, bench.service, bench.boot)
        await bench.execute(_HOURS, bench.service, quarter)
        async with bench.database.connection() as db:
            for n in range(10):
                came = (0.0, "register", f"s{n}", None, None, "came", "info")
                await events.write(db, bench.boot, [came] * (count // 10))
            await db.execute(_LINES, f"stranger{quarter}-", count)
            await boards.add_days(db, [(worker.client_id, bench.service, 1000) for worker in self._workers])
            await history.begin_flush(db, uuid4(), 1)

    async def _work(self) -> None:
        """Make, claim and settle until nothing waits; every twentieth bucket is given back once."""
        bench, turn = self._bench, 0
        while True:
            async with bench.database.transaction() as db:
                await building.lock(db, [bench.service])
                made, _ = await building.make(db, bench.service, SIZE * 100, SIZE, short=True)
            while claimed := await bench.claim(*(self._workers[n % WORKERS] for n in range(turn, turn + AT_ONCE))):
                turn += AT_ONCE
                given_back = claimed[0] if turn % (20 * AT_ONCE) == 0 else None
                if given_back is not None:
                    await bench.release(given_back)
                    await bench.execute("UPDATE return_block SET until = now()")
                    await bench.execute("UPDATE membership SET wait_until = NULL")
                in_parts = claimed[1:] if turn % (PARTS * AT_ONCE) == 0 else []
                await bench.settle(*(submit(one) for one in claimed if one is not given_back and one not in in_parts))
                for n in range(PARTS):
                    await bench.settle(*(submit(one, one.items[n::PARTS], final=False) for one in in_parts))
            if not made:
                return

    async def _end(self) -> Quarter:
        """Put away what the node puts away, and look."""
        bench = self._bench
        async with bench.database.connection() as db:
            while await building.retire(db):
                pass
            while await statistics.fold(db):
                pass
            await self._prune(db)
            await db.execute("VACUUM", timeout=600)
            tables = {row["name"]: row["bytes"] for row in await db.fetch(_SIZES)}
            return Quarter(await db.fetchval("SELECT count(*) FROM result"), tables)

    async def _prune(self, db: Any) -> None:
        await history.forget(db)
        await boards.fold_days(db)
        await events.forget(db)
        await activity.keep(db, 400)
        # Until the pruner has come through all of them.
        clients = claims = merged = False
        while not (clients and claims and merged):
            await self._pruner.prune()
            clients, claims = clients or not self._pruner._last_client, claims or not self._pruner._last_claim
            merged = merged or not self._pruner._last_merged

    async def _later(self) -> None:
        """Let a quarter pass.  Whatever is rewritten for it takes no more room afterwards than before."""
        bench = self._bench
        for row in await bench.rows(_TIMES):
            moved = ", ".join(
                f"{column} = {column} - interval '{QUARTER}'" + ("::date" if kind == "date" else "")
                for column, kind in zip(row["columns"], row["types"], strict=True)
            ).replace(f"interval '{QUARTER}'::date", "91")
            async with bench.database.connection() as db:
                await db.execute(f"UPDATE {row['relname']} SET {moved}", timeout=600)
                await db.execute(f"VACUUM FULL {row['relname']}", timeout=600)

    async def _recheck(self) -> None:
        """Let all items wait again."""
        bench, due = self._bench, 1
        while due:
            async with bench.database.transaction() as db:
                await building.lock(db, [bench.service])
                due = await rechecks.recheck(db, bench.service, 86_400.0)


def further(ends: Sequence[Quarter]) -> list[float]:
    """Bytes for each further result, of each quarter but the first."""
    return [(end.bytes - before.bytes) / (end.results - before.results) for before, end in pairwise(ends)]


def table_of(ends: Sequence[Quarter]) -> Table:
    """Bytes an item by table, quarter by quarter."""
    items = ends[0].results
    table = Table("bytes an item", *(f"quarter {n + 1}" for n in range(len(ends))), title=f"{items:,} items")
    for name in sorted(ends[-1].tables, key=lambda name: -ends[-1].tables[name]):
        if ends[-1].tables[name] / items >= 0.1:
            table.add_row(name, *(f"{end.tables.get(name, 0) / items:.1f}" for end in ends))
    table.add_row("all", *(f"{end.bytes / items:.1f}" for end in ends))
    table.add_row("each further result", "", *(f"{each:.1f}" for each in further(ends)))
    return table


async def main(items: int, quarters: int) -> bool:
    """Play on a fresh Postgres, and print the table; tells whether what is promised holds."""
    folder = folder_for_postgres("year")
    postgres = EmbeddedPostgres(folder)
    try:
        await asyncio.to_thread(postgres.start)
        await prepare_database(postgres.dsn, folder)
        database = Database(postgres.dsn)
        await database.open()
        ends = await Year(await Bench.make(database), items).play(quarters)
        await database.close()
        Console().print(table_of(ends))
        second, *later = further(ends)
        return max(later, default=second) <= min(FURTHER, FLAT * second)
    finally:
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--quarters", type=int, default=4, help="2 at least")
    chosen = parser.parse_args()
    sys.exit(0 if asyncio.run(main(chosen.items, chosen.quarters)) else 1)
