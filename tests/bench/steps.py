"""Costs of the steps of the work, measured on a real node and its Postgres through real sockets.

Each step is done many times; the differences between two ways of doing the same tell what one step more costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple, dataclass
from functools import partial
from operator import add
from statistics import median
from time import perf_counter

from tests.bench.asking import asks
from tests.bench.peer import Message, Peer, submission, volunteer
from tests.bench.rows import SIZE
from tests.bench.world import Cost, World

PARTS = 4
"""Submits for a bucket that is not submitted as a whole."""

CROWD = 60
"""Clients that ask and submit together; the number of buckets is a multiple of it."""

FEW = 8
"""Buckets of the client that takes its time."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Cost of one step: statements, milliseconds of a core of the database, and of the node."""

    statements: float = 0.0
    database_ms: float = 0.0
    node_ms: float = 0.0

    def __add__(self, other: StepCost) -> StepCost:
        return StepCost(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: StepCost) -> StepCost:
        return self + other * -1.0

    def __mul__(self, times: float) -> StepCost:
        return StepCost(*(value * times for value in astuple(self)))

    def positive(self) -> StepCost:
        """The same without what the noise of a measurement made negative."""
        return StepCost(*(max(0.0, value) for value in astuple(self)))


@dataclass(frozen=True, slots=True)
class Steps:
    """Cost of each step of the work."""

    claim: StepCost
    """A claim statement, without the buckets in it."""
    bucket: StepCost
    """A bucket of usual size that is claimed, pushed and stored."""
    submit: StepCost
    """A transaction that stores submits, without their results."""
    make: StepCost
    """Making a bucket of waiting items."""
    add: StepCost
    """Adding a thousand items."""
    session: StepCost
    """A session, from its hello to its end."""
    second: StepCost
    """A second of a node that works, without the steps above."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that steps take."""

    claim: float
    """A claim statement for one bucket."""
    claim_more: float
    """Each further bucket in it."""
    submit: float
    """A transaction for one whole bucket."""
    submit_more: float
    """Each further bucket in it."""
    ask: float
    """From an ask to the bucket, with nobody else about."""


@dataclass(frozen=True, slots=True)
class Run:
    """Work of one kind: its cost, its seconds, and how many buckets, sessions or thousands of items it was."""

    cost: Cost
    seconds: float
    count: int

    def calls(self, statement: str) -> int:
        """How often the node made that statement."""
        return self.cost.by_name.get(statement, (0, 0, 0.0))[0]

    def call_seconds(self, *statements: str) -> float:
        """Seconds that these statements took together, for each call of the first."""
        milliseconds = sum(self.cost.by_name.get(name, (0, 0, 0.0))[2] for name in statements)
        return milliseconds / 1000 / self.calls(statements[0])

    @property
    def total(self) -> StepCost:
        return StepCost(self.cost.calls, self.cost.postgres * 1000, self.cost.server * 1000)

    def each(self, second: StepCost) -> StepCost:
        """Cost of one of what was counted, without what the node does each second anyway."""
        return (self.total - second * self.seconds) * (1 / self.count)


@asynccontextmanager
async def neighbour_of(world: World) -> AsyncIterator[None]:
    """A second node on the same Postgres, which does nothing."""
    neighbour = World(world.folder / "neighbour", world.postgres)
    neighbour.folder.mkdir()
    neighbour.token = world.token
    await neighbour.start()
    try:
        yield
    finally:
        await neighbour.stop()


async def measure(world: World, buckets: int) -> tuple[Steps, Timings]:
    """Measure everything with so many buckets in each way of working, on a running node.

    The node is to have a neighbour, since a node that is alone asks the database less.
    """
    async with AsyncExitStack() as stack:
        runs: dict[str, Run] = {}
        runs["add"] = await _run(world, max(5, buckets // 20), _add_items)  # nobody is there to make buckets for
        await _let_wait(world, buckets)
        runs["wait"] = await _run(world, buckets, _let_wait)

        names = [f"step{number}" for number in range(CROWD)]
        await world.register(names)
        runs["make"] = await _run(world, buckets, fill_pool)

        runs["session"] = await _run(world, CROWD, partial(_open_and_close, names))
        peers = [await volunteer(world.url, name) for name in names]
        for peer in peers:
            stack.push_async_callback(peer.close)

        asked = await asks(world, peers[0], 40)  # warms up, and tells how long an ask takes
        await fill_pool(world, buckets)
        runs["alone"] = await _run(world, buckets, partial(_one_by_one, peers[0]))
        await fill_pool(world, buckets)
        runs["parts"] = await _run(world, buckets, partial(_one_by_one, peers[0], parts=PARTS))
        await fill_pool(world, buckets)
        runs["together"] = await _run(world, buckets, partial(_together, peers))
        await fill_pool(world, FEW)
        runs["slow"] = await _run(world, FEW, partial(_one_by_one, peers[0], pause=0.5))

    return steps_of(runs), timings_of(runs, median(asked))


def steps_of(runs: Mapping[str, Run]) -> Steps:
    """Solve for the cost of each step what the ways of working cost."""
    alone, parts, together, slow = (runs[name] for name in ("alone", "parts", "together", "slow"))

    # Both took as many statements for a bucket; the slow one had more seconds.
    share = slow.count / alone.count
    second = ((slow.total - alone.total * share) * (1 / (slow.seconds - alone.seconds * share))).positive()
    of_one_node = StepCost(second.statements, second.database_ms / 2, second.node_ms)  # the neighbour has its own

    # Alone, a bucket takes a claim and a submit; in parts it takes more submits; together it takes a part of both.
    whole = alone.each(second)
    submit = ((parts.each(second) - whole) * (1 / (PARTS - 1))).positive()
    claims, submits = (together.calls(name) / together.count for name in ("claims.claim", "results.settle"))
    claim = ((whole - together.each(second) - submit * (1 - submits)) * (1 / (1 - claims))).positive()

    return Steps(
        claim=claim,
        bucket=(whole - claim - submit).positive(),
        submit=submit,
        make=(runs["make"].each(second) - runs["wait"].each(second)).positive(),
        add=runs["add"].each(second).positive(),
        session=runs["session"].each(second).positive(),
        second=of_one_node,
    )


def timings_of(runs: Mapping[str, Run], ask: float) -> Timings:
    """Find how long a statement for one bucket takes, and each further one in it; `ask` is told as it is."""

    def first_and_more(*statements: str) -> tuple[float, float]:
        first, many = (runs[name].call_seconds(*statements) for name in ("alone", "together"))
        further = runs["together"].count / runs["together"].calls(statements[0]) - 1
        return first, max(0.0, many - first) / further

    claim, submit = first_and_more("claims.claim"), first_and_more("results.settle", "copy.result", "commit")
    return Timings(*claim, *submit, ask)


async def _run(world: World, count: int, work: Callable[[World, int], Awaitable[object]]) -> Run:
    before, begun = await world.cost(), perf_counter()
    await work(world, count)
    seconds = perf_counter() - begun
    return Run((await world.cost()).since(before), seconds, count)


async def _add_items(world: World, thousands: int) -> None:
    admin = await world.admin()
    for number in range(thousands):
        items = [{"key": f"step{number}-{n}"} for n in range(1000)]
        await admin.request("item.add", items=items, services=["dm_check"])
    await admin.close()


async def _open_and_close(names: Sequence[str], world: World, _: int) -> None:
    for name in names:
        await (await volunteer(world.url, name)).close()


async def _let_wait(world: World, buckets: int) -> None:
    await world.wait_items("dm_check", buckets * SIZE)


async def fill_pool(world: World, buckets: int) -> None:
    await _let_wait(world, buckets)
    await world.pool_filled("dm_check", buckets)


async def _one_by_one(peer: Peer, _: World, buckets: int, *, parts: int = 1, pause: float = 0.0) -> None:
    """Ask for one bucket after the other, and submit each in so many parts."""
    for _number in range(buckets):
        await peer.send("ask", service="dm_check", count=1)
        await submit_in_parts(peer, await peer.until("bucket"), parts)
        await asyncio.sleep(pause)


async def submit_in_parts(peer: Peer, bucket: Message, parts: int) -> None:
    """Submit all of a bucket, one part after the other."""
    whole = submission(bucket)
    size = -(-len(whole["results"]) // parts)

    for start in range(0, len(whole["results"]), size):
        results, final = whole["results"][start : start + size], start + size >= len(whole["results"])
        await peer.request("submit", **{**whole, "results": results, "final": final})


async def _together(peers: Sequence[Peer], _: World, buckets: int) -> None:
    """Let all ask at the same time, and submit at the same time."""
    for _number in range(buckets // len(peers)):
        for peer in peers:
            await peer.send("ask", service="dm_check", count=1)
        pushed = [await peer.until("bucket") for peer in peers]

        for peer, bucket in zip(peers, pushed, strict=True):
            await peer.send("submit", **submission(bucket))
        for peer in peers:
            await peer.until("stored")
