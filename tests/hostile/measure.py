"""One flood, and what others notice of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.bench.figures import percentile
from tests.bench.world import Program, World
from tests.hostile.bystander import Bystanders

MIB = 1024 * 1024

STRANGERS_WELCOME = ("--trusted-proxies", "127.0.0.0/8", "--registration", "open", "--viewers", "open")
"""Flags of a node that is reached by a proxy and takes everybody: the hardest case."""

LOOKS = 0.05
"""Seconds between two looks at the node's memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The effect of a flood: seconds from ask to bucket before, during and after it, bytes, connections."""

    flood: str
    count: int
    quiet: list[float]
    during: list[float]
    after: list[float]
    grown: int
    left: int
    disconnected: int
    cpu: float

    @property
    def times_quiet(self) -> float:
        """How many times the quiet p99 the p99 was during the flood."""
        return percentile(self.during, 0.99) / percentile(self.quiet, 0.99)


async def measure(world: World, flooder: Program, flood: str, seconds: float, *, settle: float = 60.0) -> Outcome:
    """Measure a bystander quiet, during the flood and after it; the memory has `settle` seconds to come back."""
    async with AsyncExitStack() as stack:
        bystanders = await Bystanders.of(world, stack)
        await bystanders.fill(world, 3 * seconds + 3)
        await bystanders.asks(0.3)  # warms up
        quiet = await bystanders.asks(seconds)
        before, cpu = world.resident(), (await world.cost()).server

        port = int(world.url.rpartition(":")[2])
        await flooder.say(flood, port=port, seconds=seconds, token=world.token)
        watching = asyncio.create_task(_peak(world))
        stack.callback(watching.cancel)
        during = await bystanders.asks(seconds)
        count = (await flooder.hear())["count"]
        spent = (await world.cost()).server - cpu

        after = await bystanders.asks(seconds)
        watching.cancel()
        peak = max(await asyncio.gather(watching))
        left = await _settled(world, before, settle)
        return Outcome(
            flood, count, quiet, during, after, peak - before, left - before, bystanders.disconnected, spent / seconds
        )


async def _peak(world: World) -> int:
    """The most memory that the node had, until cancelled."""
    peak = 0
    try:
        while True:
            peak = max(peak, world.resident())
            await asyncio.sleep(LOOKS)
    except asyncio.CancelledError:
        return peak


async def _settled(world: World, before: int, seconds: float) -> int:
    """The memory once it is about what it was, or after so many seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (now := world.resident()) > before + 10 * MIB and loop.time() < end:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.2)
    return now
