"""What observing costs: the same work with a node as it is, and with one that counts and records nothing."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.bench.figures import Figure
from tests.bench.throughput import Daemons
from tests.bench.world import World


async def measure(world: World, rounds: int, buckets: int) -> list[Figure]:
    """In pairs, the first of which warms up; each node works a little before it is measured."""
    ratios, spent = [], []
    for number in range(rounds + 1):
        rates = []
        for program in ((), ("-m", "tests.bench.uncounted")) if number % 2 else (("-m", "tests.bench.uncounted"), ()):
            await world.stop()
            await world.start(*program)
            async with AsyncExitStack() as stack:
                daemons = await Daemons.start(world, 16, stack)
                await world.ready_buckets("dm_check", buckets + 100)
                await daemons.run(world, 100)
                rates.append(await daemons.run(world, buckets))
        counted, uncounted = rates if number % 2 else rates[::-1]
        if number:
            ratios.append(counted.rate / uncounted.rate)
            spent.append(
                (counted.cost.server + counted.cost.postgres) / (uncounted.cost.server + uncounted.cost.postgres)
            )
    return [
        Figure("observation on against off: items/s", "times", ratios, ">= 0.98"),
        Figure("observation on against off: CPU of node and Postgres", "times", spent, "<= 1.02"),
    ]
