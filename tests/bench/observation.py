"""Cost of observing: the same work by one node that observes, and that does not.

In slices of half a second in turn (on, off, off, on, …), because a machine differs from minute to minute by more than
what is looked for, and so do two nodes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.bench.figures import Figure
from tests.bench.throughput import Daemons, Round
from tests.bench.world import World

ORDER = (True, False, False, True, False, True, True, False)
"""Of the slices of a round, which are observed: neither kind comes earlier than the other."""


async def measure(world: World, rounds: int, buckets: int) -> list[Figure]:
    """`buckets` to a slice; a round before those that count warms up."""
    rates, spent = [], []
    await world.stop()
    await world.start("-m", "tests.bench.switchable")
    async with AsyncExitStack() as stack:
        daemons = await Daemons.start(world, 16, stack)
        observing = True

        for number in range(rounds + 1):
            await world.ready_buckets("dm_check", len(ORDER) * buckets)
            slices: dict[bool, list[Round]] = {True: [], False: []}
            for observed in ORDER:
                if observed != observing:
                    os.kill(world.pid, signal.SIGUSR1)
                    observing = observed
                run = await daemons.run(world, buckets)
                assert ("claims.claim" in run.cost.by_name) == observed, "it was switched too late"
                slices[observed].append(run)

            if number:
                on, off = slices[True], slices[False]
                rates.append(sum(run.seconds for run in off) / sum(run.seconds for run in on))
                spent.append(_cpu(on) / _cpu(off))

    return [
        Figure("observation on against off: items/s", "times", rates, ">= 0.98"),
        Figure("observation on against off: CPU of node and Postgres", "times", spent, "<= 1.02"),
    ]


def _cpu(slices: Sequence[Round]) -> float:
    return sum(run.cost.server + run.cost.postgres for run in slices)
