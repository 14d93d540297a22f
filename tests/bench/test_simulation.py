"""The simulated day holds what it says: its store is the real one, step by step, and its figures are of the day."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import pytest

from coordinator.app import Node
from coordinator.client.checkers import UpstreamLimited
from coordinator.client.x_api import Allowance as RealAllowance
from coordinator.config import Settings
from coordinator.model import ServiceSettings
from coordinator.store.pool import Database
from tests.bench.simulation.costs import PRICES, Costs, core_ms, grown
from tests.bench.simulation.day import Day, bound
from tests.bench.simulation.ledger import Spread, Work
from tests.bench.simulation.report import figures
from tests.bench.simulation.scenario import Scenario
from tests.bench.simulation.volunteer import Allowance
from tests.bench.simulation.witness import Witness, shift_clock
from tests.flow.room import Room

SMALL = Scenario(clients=200, nodes=2, hours=0.3, warm_up=300.0, crash_at=600.0, backlog=600.0, cuts_an_hour=1.0)


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_model_does_what_postgres_does(dsn: str, tmp_path: Path, seed: int) -> None:
    """Some hundred clients that are often cut off, give back and hang, and every step on both."""
    settings = {"bucket_size": 5, "max_buckets_per_ask": 1, "dead_after": 12.0, "release_after": 4.0}
    scenario = Scenario(
        clients=200,
        nodes=1,
        hours=40.0 / 3600,
        warm_up=2.0,
        seed=seed,
        all_day=0.05,
        visits=200.0,
        visit=20.0,
        requests=10,
        window=10.0,
        speed=2.0,
        cuts_an_hour=180.0,
        cut_for=2.0,
        give_back=0.1,
        hang=0.03,
        recollect_window=10.0,
        crash_at=None,
        load=0.8,
        urgent=0.1,
        low=0.1,
        backlog=0.0,
        settings=ServiceSettings(bucket_size=5, max_buckets_per_ask=1, dead_after=12.0, release_after=4.0),
    )
    connection = await shift_clock(dsn)
    database = Database(dsn)
    await database.open()
    async with Node(Settings(port=0, ops_port=0, data=tmp_path, recollect_window=10.0), dsn=dsn) as node:
        for task in node.tasks:  # it does nothing by itself
            task.cancel()
        await asyncio.wait(node.tasks)
        await node.parts.background.finish()
        room = await Room.open(node, database, "room", **settings)
        witness = partial(Witness, room=room, clock_connection=connection, loop=asyncio.get_running_loop())
        day = await asyncio.to_thread(Day, scenario, Costs(), witness)
        await asyncio.to_thread(day.play)
        store = cast(Witness, day.store)
        await asyncio.to_thread(store.compare)
    await database.close()
    await connection.close()
    often = {"claim", "settle", "waits", "make", "recollect", "recollected", "report", "died", "release cut_off"}
    assert min(store.steps[step] for step in often | {"release released", "choosy"}) > 0, store.steps


def test_the_same_seed_plays_the_same_day() -> None:
    """And all that was added is settled, waits, or is in a bucket."""
    first, second = _played(SMALL), _played(SMALL)
    told = figures(first, 1.0, 10_000)
    assert told == figures(second, 1.0, 10_000)
    assert told != figures(_played(replace(SMALL, seed=2)), 1.0, 10_000)
    assert told["scaled"]["clients"] == 10_000
    assert told["ask_to_bucket_seconds"]["count"] > 20
    assert told["overtaken_by_seconds"]["most"] <= bound(SMALL)


def test_no_item_is_lost_in_the_model() -> None:
    day = _played(replace(SMALL, warm_up=0.0))
    left = sum(bucket.left for client in day.volunteers for bucket in client.member.held)
    settled = sum(spread.weight for spread in day.store.settled_after.values())
    backlog = 10 * (int(day.added_per_second * SMALL.backlog) // 10)
    added = sum(work["add"].items for work in day.store.ledger.bins)
    broken = day.store.quarantined + day.store.set_aside
    assert day.store.waiting.items + day.store.ready.items + left + broken + round(settled) == added + backlog


def _played(scenario: Scenario) -> Day:
    day = Day(scenario, Costs())
    day.play()
    return day


def test_the_outside_api_takes_what_the_library_counts() -> None:
    """The allowance that is taken many at a time allows what the library's own does, one by one."""
    chance, now = Random(1), 1_000_000.0
    real, model = RealAllowance(180, 900.0, lambda: now), Allowance(180, 900.0)
    taken = 0
    for _ in range(200):
        now += chance.expovariate(1 / 120.0)
        left = model.left(now)
        count = min(left, chance.randint(1, 60))
        for _ in range(count):
            real.take()
        if count == left:
            with pytest.raises(UpstreamLimited) as limited:
                real.take()
        if count:
            model.take(now, count)
        if count == left:
            assert now + limited.value.retry_after == pytest.approx(model.resets)
        taken += count
    assert taken > 2000


def test_a_spread_tells_percentiles_within_its_step() -> None:
    spread = Spread()
    for n in range(1, 1001):
        spread.add(n / 10, 2.0)
    assert spread.weight == 2000
    for share in (0.5, 0.9, 0.99):
        assert spread.at(share) == pytest.approx(100 * share, rel=0.02)
    assert spread.most == 100.0
    assert Spread().at(0.5) is None


def test_a_tenfold_load_costs_tenfold_and_looks_come_with_the_nodes() -> None:
    work = {"claim": Work(10, 10, 20, 10), "look": Work(4, 20, 0, 0, 0, 4000, 400)}
    more = grown(work, 10.0, 2.0)
    assert more["claim"] == Work(100, 100, 200, 100)
    assert more["look"] == Work(8, 40, 0, 0, 0, 8000, 800)
    costs = Costs(look_ms=1.0, look_ms_per_1000_members=2.0, look_ms_per_1000_ready=3.0)
    assert core_ms("look", more["look"], costs) == pytest.approx(8 * 1.0 + 8 * 2.0 + 0.8 * 3.0)


def test_every_cost_is_paid_for_something() -> None:
    priced = {name for units in PRICES.values() for name, _ in units.values()}
    others = {"commit_ms", "node_ms_per_bucket", "sessions_per_node", "busy"}
    assert priced | others == {one.name for one in fields(Costs)}


async def test_the_command_tells_what_it_found() -> None:
    command = [sys.executable, "-m", "tests.bench.simulate", "--clients", "100", "--hours", "0.2", "--json"]
    running = await asyncio.create_subprocess_exec(*command, "--claim-ms", "7", stdout=asyncio.subprocess.PIPE)
    told, _ = await running.communicate()
    found = json.loads(told)
    assert (running.returncode, found["costs"]["claim_ms"]) == (0, 7.0)
    assert found["database"]["peak"]["statements_per_second"] > 0
