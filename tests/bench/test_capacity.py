"""The model of capacity foretells what a real node does with real clients on a real Postgres."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from random import Random
from statistics import median
from time import perf_counter

import pytest

from tests.bench.capacity import DAY, MINUTE, NodeLoad, Scenario, day_of, forecast, needs_of, serve
from tests.bench.figures import percentile
from tests.bench.peer import Peer, volunteer
from tests.bench.simulate import STEPS, TIMINGS
from tests.bench.steps import CROWD, fill_pool, measure, neighbour_of, submit_in_parts
from tests.bench.world import World, world

pytestmark = pytest.mark.measured

CLIENTS = 20
PARTS = 2
SECONDS = 4.0
PAUSE = 0.4
"""Seconds that a client takes for a bucket, on average."""


@pytest.mark.long
async def test_the_model_foretells_what_a_node_does_with_clients_at_their_own_pace() -> None:
    """Costs are those of few clients who hurry; foretold are statements, processor time, rate and waits of others."""
    async with world() as here:
        await here.start()
        async with neighbour_of(here), AsyncExitStack() as stack:
            steps, timings = await measure(here, CROWD)
            names = [f"paced{number}" for number in range(CLIENTS)]
            await here.register(names)
            peers = [await volunteer(here.url, name) for name in names]
            for peer in peers:
                stack.push_async_callback(peer.close)
            await fill_pool(here, int(2 * SECONDS * CLIENTS / PAUSE))

            before, begun = await here.cost(), perf_counter()
            asked = await _work(here, peers)
            seconds = perf_counter() - begun
            spent = (await here.cost()).since(before)

    # From the batches that there were, the statements follow; how many batches there were, the machine decides, too.
    claims, commits = (spent.by_name[name][0] for name in ("claims.claim", "results.settle"))
    cost = steps.claim * claims + steps.bucket * len(asked) + steps.submit * commits + steps.second * seconds
    assert cost.statements + steps.add.statements == pytest.approx(spent.calls, rel=0.1)

    rate = len(asked) / seconds
    foretold = forecast(NodeLoad(asks=rate, submits=PARTS * rate, added=1000 / seconds), steps, timings)
    ratios = {
        "statements": foretold.total.statements * seconds / spent.calls,
        "cores": foretold.total.database_ms * seconds / 1000 / spent.postgres,
        "rate": CLIENTS / (PAUSE + timings.ask + PARTS * timings.submit) / rate,
    }
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios
    assert percentile(asked, 0.5) / 5 < median(foretold.asks) < percentile(asked, 0.5) * 5


async def _work(here: World, peers: list[Peer]) -> list[float]:
    """Seconds from each ask to its bucket, of clients that work at their own pace while items are added."""
    chance, asked = Random(1), list[float]()
    ends = perf_counter() + SECONDS

    async def work(peer: Peer) -> None:
        while perf_counter() < ends:
            begun = perf_counter()
            await peer.send("ask", service="dm_check", count=1)
            bucket = await peer.until("bucket")
            asked.append(perf_counter() - begun)
            await asyncio.sleep(2 * PAUSE * chance.random())
            await submit_in_parts(peer, bucket, PARTS)

    admin = await here.admin()
    async with asyncio.TaskGroup() as group:
        for peer in peers:
            group.create_task(work(peer))
        items = [{"key": f"paced{number}"} for number in range(1000)]
        await admin.request("item.add", items=items, services=["dm_check"])
    await admin.close()
    return asked


def test_what_waits_is_served_in_batches() -> None:
    batches, took = serve([0.0, 0.1, 0.2, 0.3, 5.5], most=2, workers=1, seconds=lambda size: 1.0 + size)
    assert batches == 4
    assert took == pytest.approx([2.0, 4.9, 4.8, 6.7, 3.5])

    batches, took = serve([0.0, 0.1, 0.2], most=2, workers=2, seconds=lambda size: 1.0)
    assert batches == 3
    assert took == pytest.approx([1.0, 1.0, 1.8])


def test_the_day_keeps_count_of_its_items() -> None:
    scenario = Scenario()
    minutes = day_of(scenario)
    settled = sum(minute.settled for minute in minutes) * MINUTE
    assert settled + minutes[-1].waiting == pytest.approx(scenario.added * DAY)
    assert all(0 <= minute.idle < 1 and minute.waiting >= 0 for minute in minutes)
    assert max(minute.wait for minute in minutes) > 0


def test_tenfold_clients_need_tenfold() -> None:
    few, many = (needs_of(Scenario(clients=clients), STEPS, TIMINGS) for clients in (100_000, 1_000_000))
    assert few.nodes * 8 < many.nodes <= few.nodes * 10
    statements = [sum(cost.statements for cost in needs.steps.values()) for needs in (few, many)]
    assert statements[0] * 8 < statements[1] < statements[0] * 12


async def test_the_command_tells_what_it_found() -> None:
    command = [sys.executable, "-m", "tests.bench.simulate", "--clients", "1000", "5000", "--hours", "12", "--json"]
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await running.communicate()
    assert running.returncode == 0
    first, second = json.loads(told)["needs"]
    assert (first["clients"], second["clients"]) == (1000, 5000)
    assert 0 < first["database_cores"] < second["database_cores"]
