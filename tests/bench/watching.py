"""Cost of being watched for the work: ten dashboards and Prometheus, there and not there, on the same node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.request import urlopen

from coordinator.wire.stats import TOPICS
from tests.bench.dashboards import Dashboard
from tests.bench.figures import Figure
from tests.bench.throughput import Daemons, Round
from tests.bench.world import World

DASHBOARDS = 10

IDLE = 5.0
"""Seconds for which a node is watched that does nothing else: what that costs shows better there."""

SCRAPE = 1.0
"""Seconds between two looks of Prometheus; it looks every 15 unless told otherwise."""


async def measure(world: World, rounds: int, buckets: int) -> list[Figure]:
    """Measure in pairs on one node, in turn with and without; the first pair warms up."""
    rates: list[float] = []
    spent: list[float] = []
    async with AsyncExitStack() as stack:
        daemons = await Daemons.start(world, 16, stack)
        for number in range(rounds + 1):
            pair: dict[bool, Round] = {}
            for watched in (True, False) if number % 2 else (False, True):
                await world.ready_buckets("dm_check", buckets)
                if watched:
                    async with _watchers(world):
                        pair[watched] = await daemons.run(world, buckets)
                else:
                    pair[watched] = await daemons.run(world, buckets)

            if number:
                rates.append(pair[True].rate / pair[False].rate)
                costs = [pair[watched].cost.server + pair[watched].cost.postgres for watched in (True, False)]
                spent.append(costs[0] / costs[1])
        idle = [await _idle(world) for _ in range(rounds)]

    who = f"{DASHBOARDS} dashboards and /metrics, against nobody watching"
    return [
        Figure(f"{who}: items/s", "times", rates, ">= 0.98"),
        Figure(f"{who}: CPU of node and Postgres", "times", spent, "<= 1.02"),
        Figure(f"{who}: CPU of an idle node and Postgres", "% of a core", idle, "<= 4"),
    ]


async def _idle(world: World) -> float:
    """Percent of a core that being watched takes while there is nothing to do; the goal is two of both cores' 100."""
    spent = []
    for watched in (False, True):
        async with AsyncExitStack() as stack:
            if watched:
                await stack.enter_async_context(_watchers(world))
            before = await world.cost()
            await asyncio.sleep(IDLE)
            after = (await world.cost()).since(before)
            spent.append(after.server + after.postgres)
    return (spent[1] - spent[0]) / IDLE * 100


@asynccontextmanager
async def _watchers(world: World) -> AsyncIterator[None]:
    """Dashboards that are sent all topics once a second, and a scraper, until the block ends."""
    host, _, port = world.url.removeprefix("ws://").partition(":")
    loop = asyncio.get_running_loop()
    dashboards = [(await loop.create_connection(Dashboard, host, int(port)))[1] for _ in range(DASHBOARDS)]
    for dashboard in dashboards:
        dashboard.say(type="hello", protocol=1)
        dashboard.say(type="subscribe", topics=list(TOPICS), interval=1)

    scraper = asyncio.create_task(_scrape(world.ops_url))
    Dashboard.taken = 0

    try:
        yield
        assert Dashboard.taken, "the dashboards were sent nothing"
        assert not scraper.done(), scraper.exception()
    finally:
        scraper.cancel()
        await asyncio.wait([scraper])
        for dashboard in dashboards:
            dashboard.transport.close()


async def _scrape(url: str) -> None:
    while True:
        page = await asyncio.to_thread(_page, f"{url}/metrics")
        assert b"coordinator_items_settled_total" in page
        await asyncio.sleep(SCRAPE)


def _page(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        found: bytes = answer.read()
        return found
