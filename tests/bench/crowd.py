"""Cost of idle sessions, and how long asks take beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import perf_counter

from tests.bench.asking import asks
from tests.bench.figures import Figure, percentile
from tests.bench.peer import volunteer
from tests.bench.world import Program, World

PROCESSES = 2
EACH_ADDRESS = 200
"""Sessions from one address; a server takes 1,000."""

PING = 20.0
"""Seconds between the pings of a server with default settings."""


async def measure(world: World, rounds: int, steps: Sequence[int], *, pings: bool) -> list[Figure]:
    """Memory a session at the last of the steps (numbers of sessions), and the time of an ask at each of them.

    `pings`: stay long enough for each session to be pinged.
    """
    figures: list[Figure] = []
    async with AsyncExitStack() as stack:
        programs = []
        for _ in range(PROCESSES):
            programs.append(await Program.start("tests.bench.idlers", world.url))
            stack.push_async_callback(programs[-1].end)

        await world.register(["asker"])
        asker = await volunteer(world.url, "asker", "127.0.0.1")
        stack.push_async_callback(asker.close)
        await asks(world, asker, 20)  # warms up
        before, there = world.resident(), 0
        memory: list[float] = []

        for step in steps:
            for at in range(there, step, EACH_ADDRESS):
                number = at // EACH_ADDRESS
                names = [f"idle{n}" for n in range(at, min(step, at + EACH_ADDRESS))]
                await world.register(names)
                await programs[number % PROCESSES].ask(
                    "connect", names=names, address=f"127.0.{1 + number // 200}.{1 + number % 200}"
                )
                memory.append((world.resident() - before) / (at + len(names)) / 1024)

            there = step
            asked = [percentile(await asks(world, asker, 40), 0.5) * 1000 for _ in range(rounds)]
            figures.append(Figure(f"ask → bucket beside {step:,} idle sessions, p50", "ms", asked, "<= 20"))

        figures.append(Figure(f"memory a session, {there:,} idle ones", "KiB", memory[-rounds:], "<= 24"))
        if pings:
            figures += await _pings(world, programs, there)
    return figures


async def _pings(world: World, programs: Sequence[Program], sessions: int) -> list[Figure]:
    """Stay until each of so many sessions was pinged."""
    cpu = (await world.cost()).server
    begun = perf_counter()
    before = [await program.ask("pings") for program in programs]
    await asyncio.sleep(PING + 5)
    after = [await program.ask("pings") for program in programs]
    spent = ((await world.cost()).server - cpu) / (perf_counter() - begun)

    answered = sum(told["pings"] for told in after) - sum(told["pings"] for told in before)
    still_open = sum(told["open"] for told in after)
    goal = f">= {sessions}"
    return [
        Figure("idle sessions still open after all were pinged", "", [still_open], goal),
        Figure(f"pings answered in {PING + 5:.0f} s", "", [answered], goal),
        Figure("CPU of the node meanwhile", "of a core", [spent]),
    ]
