"""Items settled per second, end to end, beside what Postgres takes of the same rows without any of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import asyncpg

from tests.bench.figures import Figure
from tests.bench.rows import SIZE, shuffled_buckets
from tests.bench.world import Cost, Program, World

PROCESSES = 2
CONNECTIONS = 16
"""Of the workers that insert by themselves, as many as there are daemons."""


SLOWEST = 6
"""Statements that are told by name: those that take longest."""


@dataclass(frozen=True, slots=True)
class Round:
    """Items per second, and what it cost."""

    rate: float
    buckets: int
    cost: Cost
    clients: float
    seconds: float


class Daemons:
    """Some daemons, in processes of their own."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = programs

    @classmethod
    async def start(cls, world: World, count: int, stack: AsyncExitStack, prefix: str = "daemon") -> Daemons:
        """Start so many, connected and registered."""
        programs = []
        names = [f"{prefix}{n}" for n in range(count)]
        await world.register(names)
        for n in range(PROCESSES):
            program = await Program.start("tests.bench.driver", world.url)
            stack.push_async_callback(program.end)
            programs.append(program)
            await program.say("connect", names=names[n::PROCESSES])
        for program in programs:
            await program.hear()
        return cls(programs)

    async def run(self, world: World, buckets: int) -> Round:
        """Settle so many buckets."""
        before, cpu = await world.cost(), sum(program.cpu for program in self.programs)
        for program in self.programs:
            await program.say("work", buckets=buckets // PROCESSES)
        done = [await program.hear() for program in self.programs]

        items = sum(part["items"] for part in done)
        assert items == buckets // PROCESSES * PROCESSES * SIZE, f"{items} items of {buckets} buckets were stored"
        seconds = max(part["ended"] for part in done) - min(part["begun"] for part in done)
        spent = (await world.cost()).since(before)
        return Round(items / seconds, buckets, spent, sum(program.cpu for program in self.programs) - cpu, seconds)


class Direct:
    """Workers that insert by themselves: one statement for each bucket."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs

    @classmethod
    async def start(cls, world: World, stack: AsyncExitStack) -> Direct:
        programs = []
        for _ in range(PROCESSES):
            program = await Program.start("tests.bench.driver", world.url)
            stack.push_async_callback(program.end)
            await program.ask("direct", dsn=world.dsn, connections=CONNECTIONS // PROCESSES)
            programs.append(program)
        return cls(programs)

    async def run(self, buckets: int) -> float:
        """Items per second."""
        each = buckets // PROCESSES
        for number, program in enumerate(self._programs):
            await program.say("insert", buckets=each, claim=-(number + 1) * 10_000_000)
        done = [await program.hear() for program in self._programs]
        seconds = max(part["ended"] for part in done) - min(part["begun"] for part in done)
        return float(sum(part["items"] for part in done) / seconds)


async def bare_copy(world: World, buckets: int) -> float:
    """Items per second by COPY of batches of 18,000 over one connection, each committed."""
    at = datetime.now(UTC)
    rows = [
        (item, 1, claim, at, '{"dm":"DM"}')
        for claim, items in shuffled_buckets(buckets, -1_000_000_000)
        for item in items
    ]

    connection = await asyncpg.connect(world.dsn)
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda text: b"\x01" + text.encode(), decoder=bytes, format="binary"
    )
    columns = ("item_id", "service_id", "claim_id", "at", "value")
    await connection.copy_records_to_table("result", columns=columns, records=rows[:1])  # looks the types up

    begun = perf_counter()
    for n in range(1, len(rows), 18_000):
        await connection.copy_records_to_table("result", columns=columns, records=rows[n : n + 18_000])
    seconds = perf_counter() - begun
    await connection.close()
    return (len(rows) - 1) / seconds


async def measure(world: World, rounds: int, buckets: int) -> list[Figure]:
    """Measure all in turn, each on a table without results; then 200 daemons, and the statements of both.

    The daemons work once on buckets that are ready, and once on ones that are all made while they work.
    """
    ready: list[Round] = []
    sixteen: list[Round] = []
    crowd: list[Round] = []
    copies: list[float] = []
    inserts: list[float] = []
    async with AsyncExitStack() as stack:
        daemons = await Daemons.start(world, 16, stack)
        direct = await Direct.start(world, stack)
        for number in range(rounds + 1):  # the first one warms up
            found: dict[str, Any] = {}
            await world.wait_items("dm_check", (buckets + 400) * SIZE)
            found["copy"] = await bare_copy(world, buckets)
            await world.sql("TRUNCATE result")
            found["insert"] = await direct.run(buckets)

            await world.ready_buckets("dm_check", buckets)
            found["ready"] = await daemons.run(world, buckets)
            await world.wait_items("dm_check", (buckets + 400) * SIZE)
            found["ours"] = await daemons.run(world, buckets)

            if number:
                ready.append(found["ready"])
                sixteen.append(found["ours"])
                copies.append(found["copy"])
                inserts.append(found["insert"])

    async with AsyncExitStack() as stack:
        daemons = await Daemons.start(world, 200, stack)
        for number in range(rounds + 1):
            await world.ready_buckets("dm_check", buckets * 2)
            run = await daemons.run(world, buckets * 2)
            if number:
                crowd.append(run)

    return [
        Figure("bare COPY, one connection", "items/s", copies),
        Figure("one unnest insert a bucket, 16 connections", "items/s", inserts),
        *_rates("16 daemons, buckets ready", ready, copies, inserts),
        *_rates("16 daemons, buckets made meanwhile", sixteen, copies, inserts),
        *_costs("16 daemons, buckets ready", ready, 0.3),
        *_costs("16 daemons, buckets made meanwhile", sixteen, 0.3),
        Figure("200 daemons, buckets ready: settled", "items/s", [run.rate for run in crowd]),
        *_costs("200 daemons, buckets ready", crowd, 0.1),
    ]


def _rates(who: str, ours: Sequence[Round], copies: Sequence[float], inserts: Sequence[float]) -> list[Figure]:
    rates = [run.rate for run in ours]
    against_copy = [rate / base for rate, base in zip(rates, copies, strict=True)]
    against_inserts = [rate / base for rate, base in zip(rates, inserts, strict=True)]
    return [
        Figure(f"{who}: settled end to end", "items/s", rates),
        Figure(f"{who}: against bare COPY", "times", against_copy, ">= 0.6"),
        Figure(f"{who}: against unnest inserts", "times", against_inserts, ">= 1"),
    ]


def _costs(who: str, rounds: Sequence[Round], goal: float) -> list[Figure]:
    made = sum(run.cost.by_name.get("building.make", (0, 0, 0.0))[1] for run in rounds)
    share = made / sum(run.buckets for run in rounds)

    def each(value: Any) -> list[float]:
        return [value(run) / run.buckets for run in rounds]

    return [
        Figure(
            f"{who}: statements a bucket, claim and submit",
            "",
            each(lambda run: sum(run.cost.by_name.get(name, (0,))[0] for name in HOT) + _control(run)),
            f"<= {goal}",
        ),
        Figure(
            f"{who}: statements a bucket, all",
            "",
            each(lambda run: run.cost.calls),
            note=f"{share:.0%} of the buckets were also made in that time",
        ),
        Figure(f"{who}: rows a bucket", "", each(lambda run: run.cost.rows)),
        Figure(f"{who}: ms of statements a bucket", "ms", each(lambda run: run.cost.milliseconds)),
        Figure(f"{who}: CPU of the node", "ms/bucket", each(lambda run: run.cost.server * 1000)),
        Figure(f"{who}: CPU of Postgres", "ms/bucket", each(lambda run: run.cost.postgres * 1000)),
        Figure(f"{who}: CPU of the daemons", "ms/bucket", each(lambda run: run.clients * 1000)),
        Figure(f"{who}: waits for a connection", "a bucket", each(lambda run: run.cost.pool_waits)),
        *(
            Figure(f"{who}: {name}", "ms/bucket", each(lambda run, name=name: _spent(run, name)))
            for name in _slowest(rounds)
        ),
    ]


def _spent(run: Round, statement: str) -> float:
    return run.cost.by_name.get(statement, (0, 0, 0.0))[2]


def _slowest(rounds: Sequence[Round]) -> list[str]:
    """The statements that took longest."""
    names = {name for run in rounds for name in run.cost.by_name}
    return sorted(names, key=lambda name: -sum(_spent(run, name) for run in rounds))[:SLOWEST]


HOT = ("claims.claim", "claims.claim_unblocked", "claims.find_waits", "results.settle", "copy.result")


def _control(run: Round) -> int:
    """BEGIN and COMMIT of submits: two for each batch."""
    return 2 * run.cost.by_name.get("results.settle", (0,))[0]
