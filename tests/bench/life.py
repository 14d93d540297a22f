"""The whole life of an item: imported, made into a bucket, claimed, checked, settled, all at once; and its cost.

Beside it stand a bare COPY of the catalogue's rows, and a job queue's rows written as plain SQL: one job a bucket is
inserted, claimed and deleted, and its results are stored by one `unnest` insert.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import asyncpg

from tests.bench.figures import Figure
from tests.bench.importing import file_of_keys, import_file
from tests.bench.rows import SIZE
from tests.bench.throughput import CONNECTIONS, PROCESSES, Daemons
from tests.bench.world import Cost, Program, World

ADD = ("adding.reserve", "copy.item", "adding.join_range", "adding.add", "adding.known", "adding.join", "pool.flush")
STEPS = {
    "add": ADD,
    "make": ("building.make", "building.look", "due.due"),
    "claim and push": ("claims.claim", "claims.claim_unblocked", "claims.find_waits"),
    "submit and settle": ("results.settle", "copy.result", "begin", "commit"),
    "retire": ("building.retire", "statistics.fold"),
}
"""Statements of each step, as the node counts them."""

_EMPTY = """
TRUNCATE item, enrolment, waiting, bucket, bucket_items, open_bucket, claim, result, service_count, count_change,
         return_block"""

_LIKE_ITEM = "CREATE TABLE item_copy (LIKE item INCLUDING ALL)"

_DISK = """
SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
 WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'job'"""

JOBS = "CREATE TABLE job (job_id bigint PRIMARY KEY, items bigint[] NOT NULL, locked_at timestamptz)"


@dataclass(frozen=True, slots=True)
class Life:
    """One whole life of so many items."""

    items: int
    seconds: float
    cost: Cost
    importer: float
    clients: float
    background: float
    """CPU seconds of Postgres' processes that serve no connection: checkpoint, log writer, vacuum."""

    @property
    def total(self) -> float:
        """CPU seconds of all."""
        return self.cost.server + self.cost.postgres + self.importer + self.clients


async def measure(world: World, rounds: int, items: int) -> list[Figure]:
    """Measure all in turn, each with empty tables."""
    items = items // SIZE * SIZE
    copies, adds, sixteen, crowd, jobs, disk = [], [], [], [], [], []

    for number in range(rounds):
        with file_of_keys(items, f"r{number}_") as file:
            await world.sql(_EMPTY)
            copies.append(await _bare_copy(world, file))
            adds.append(await _import_alone(world, file, items))
            sixteen.append(await _life(world, 16, file, items))
            disk.append(await _bytes_on_disk(world) / items)
            crowd.append(await _life(world, 200, file, items))
            jobs.append(await _jobs(world, items))
            await world.sql(_EMPTY)

    return [
        Figure("bare COPY of the catalogue's rows", "rows/s", copies),
        Figure("item import, nothing else going on", "items/s", adds, ">= 150000"),
        Figure("item import against bare COPY", "times", [a / b for a, b in zip(adds, copies, strict=True)], ">= 0.4"),
        *_figures("16 daemons, whole life", sixteen, jobs),
        *_figures("200 daemons, whole life", crowd, jobs),
        Figure("job rows, plain SQL: CPU", "µs/item", [spent / items * 1e6 for spent in jobs]),
        Figure("bytes on disk an item, all settled, vacuumed", "bytes", disk, "<= 350"),
    ]


def _figures(who: str, lives: Sequence[Life], jobs: Sequence[float]) -> list[Figure]:
    def each(spent: Sequence[float]) -> list[float]:
        return [seconds / life.items * 1e6 for seconds, life in zip(spent, lives, strict=True)]

    def inside(names: Sequence[str]) -> list[float]:
        return [sum(life.cost.by_name.get(name, (0, 0, 0.0))[2] for name in names) / 1000 for life in lives]

    against = [life.total / spent for life, spent in zip(lives, jobs, strict=True)]
    return [
        Figure(f"{who}: import to settled", "items/s", [life.items / life.seconds for life in lives]),
        Figure(f"{who}: CPU of all", "µs/item", each([life.total for life in lives])),
        Figure(f"{who}: CPU of all against job rows", "times", against, "<= 0.7"),
        Figure(f"{who}: CPU of Postgres", "µs/item", each([life.cost.postgres for life in lives])),
        Figure(f"{who}: CPU of Postgres' background", "µs/item", each([life.background for life in lives])),
        Figure(f"{who}: CPU of the node", "µs/item", each([life.cost.server for life in lives])),
        Figure(f"{who}: CPU of the importer", "µs/item", each([life.importer for life in lives])),
        Figure(f"{who}: CPU of the daemons", "µs/item", each([life.clients for life in lives])),
        *(
            Figure(f"{who}: time in statements, {step}", "µs/item", each(inside(names)))
            for step, names in STEPS.items()
        ),
    ]


# The steps of a round


async def _bare_copy(world: World, file: Path) -> float:
    """Rows per second by COPY over one connection into a table like the catalogue."""
    text = await asyncio.to_thread(file.read_text)
    rows = [(key, "{}") for key in text.split()[1:]]
    db = await asyncpg.connect(world.dsn)
    await db.execute(_LIKE_ITEM)
    try:
        begun = perf_counter()
        for start in range(0, len(rows), 18_000):
            await db.copy_records_to_table(
                "item_copy", records=rows[start : start + 18_000], columns=("key", "attributes")
            )
        return len(rows) / (perf_counter() - begun)
    finally:
        await db.execute("DROP TABLE item_copy")
        await db.close()


async def _import_alone(world: World, file: Path, items: int) -> float:
    """Items per second, without the start of the importer's process."""
    with file_of_keys(1, "alone-") as one:
        start, _ = await import_file(world, one)
    seconds, _ = await import_file(world, file)
    await world.sql(_EMPTY)
    return items / (seconds - start)


async def _life(world: World, count: int, file: Path, items: int) -> Life:
    """Import while daemons work, until all is settled."""
    await world.sql(_EMPTY)
    async with AsyncExitStack() as stack:
        daemons = await Daemons.start(world, count, stack, f"life{count}-")
        for program in daemons.programs:
            await program.say("work", buckets=items)  # more than there are

        before, background = await world.cost(), world.background()
        clients, begun = sum(program.cpu for program in daemons.programs), perf_counter()
        _, importer = await import_file(world, file)
        while await world.settled("dm_check") < items:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)

        seconds = perf_counter() - begun
        spent = (await world.cost()).since(before)
        clients = sum(program.cpu for program in daemons.programs) - clients
        return Life(items, seconds, spent, importer, clients, world.background() - background)


async def _bytes_on_disk(world: World) -> float:
    await asyncio.sleep(1.0)  # what is done is put away
    await world.sql("VACUUM")
    return float(await world.sql(_DISK))


async def _jobs(world: World, items: int) -> float:
    """CPU seconds of Postgres and its clients for the same work as rows of a job queue."""
    await world.sql(_EMPTY, JOBS)
    try:
        async with AsyncExitStack() as stack:
            programs = []
            for _ in range(PROCESSES):
                program = await Program.start("tests.bench.driver", world.url)
                stack.push_async_callback(program.end)
                await program.ask("direct", dsn=world.dsn, connections=CONNECTIONS // PROCESSES)
                programs.append(program)

            before, clients = await world.cost(), sum(program.cpu for program in programs)
            for number, program in enumerate(programs):
                await program.say("jobs", buckets=items // SIZE // PROCESSES, first=number * items)
            done = [await program.hear() for program in programs]
            assert sum(part["items"] for part in done) == items // SIZE // PROCESSES * PROCESSES * SIZE
            spent = (await world.cost()).since(before)
            return spent.postgres + sum(program.cpu for program in programs) - clients
    finally:
        await world.sql("DROP TABLE job")
