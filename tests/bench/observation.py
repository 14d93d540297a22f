"""Cost of observing: processor time of the node's own functions for it, and time of its statements, of all of them.

Rates with and without it differ from one second to the next by ten times of what is looked for.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import msgspec

from tests.bench.figures import Figure
from tests.bench.throughput import Daemons
from tests.bench.world import Cost, World

STATEMENTS = ("history.", "events.", "statistics.")
"""Where the statements of observing stand."""

TOLD_WITHIN = 5.0


async def measure(world: World, rounds: int, buckets: int) -> list[Figure]:
    """Measure `buckets` that are ready, in each of so many rounds; one before them warms up."""
    functions, statements = [], []
    await world.stop()
    await world.start("-m", "tests.bench.timed")
    async with AsyncExitStack() as stack:
        daemons = await Daemons.start(world, 16, stack)

        for number in range(rounds + 1):
            await world.ready_buckets("dm_check", buckets)
            before = await _observing_seconds(world)
            run = await daemons.run(world, buckets)
            spent = await _observing_seconds(world) - before

            if number:
                functions.append(spent / run.cost.server)
                statements.append(_share_of_statements(run.cost))

    return [
        Figure("observing: its functions' part of the node's CPU", "of all", functions, "<= 0.02"),
        Figure("observing: its statements' part of the time in statements", "of all", statements, "<= 0.02"),
    ]


async def _observing_seconds(world: World) -> float:
    """Ask the node for the processor time of its observing until now."""
    log = world.folder / "server.log"
    known = len(_told(log.read_bytes()))
    os.kill(world.pid, signal.SIGUSR1)
    async with asyncio.timeout(TOLD_WITHIN):
        while len(told := _told(log.read_bytes())) == known:  # noqa: ASYNC110 - a signal has no answer
            await asyncio.sleep(0.01)
    return told[-1]


def _told(log: bytes) -> list[float]:
    lines = [line for line in log.splitlines() if line.startswith(b'{"observing_seconds":') and line.endswith(b"}")]
    return [float(msgspec.json.decode(line)["observing_seconds"]) for line in lines]


def _share_of_statements(cost: Cost) -> float:
    own = sum(milliseconds for name, (_, _, milliseconds) in cost.by_name.items() if name.startswith(STATEMENTS))
    return own / cost.milliseconds
