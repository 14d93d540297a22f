"""The budget of a service over all its clients: exact, however many nodes claim at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from coordinator.flow.wait_reasons import wait_of_client
from coordinator.model import Claimed, Service, ServiceSettings
from coordinator.store import claims, waits
from coordinator.store.pool import Database
from tests.bounded import within
from tests.store.bench import Bench, Worker, submit


async def reason(bench: Bench, worker: Worker) -> tuple[str, float | None]:
    """The reason for which it waits ('' if it does not), and for how many seconds."""
    async with bench.database.connection() as db:
        found = await waits.find_waits(db, bench.service, [worker.demand], bench.settings)
    service = Service(bench.service, "probe", "dm_check", "probe", "active", bench.settings)
    facts = found[worker.client_id]
    wait = wait_of_client(service, facts)
    if wait is None:
        return "", None
    return wait.reason, None if wait.until is None else (wait.until - facts.at).total_seconds()


def limit(bench: Bench, *, items_per_minute: int | None = None, max_claimed_buckets: int | None = None) -> None:
    bench.settings = replace(bench.settings, items_per_minute=items_per_minute, max_claimed_buckets=max_claimed_buckets)


async def pass_seconds(bench: Bench, seconds: float) -> None:
    await bench.execute(f"UPDATE claim SET begun_at = begun_at - interval '{seconds} s'")


@pytest.mark.parametrize(("items", "handed_out"), [(1, 1), (10, 1), (11, 2), (20, 2), (29, 3), (1000, 5)])
async def test_the_items_of_a_minute_are_passed_by_less_than_one_bucket(
    bench: Bench, items: int, handed_out: int
) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    for _ in range(5):
        await bench.bucket(10)
    limit(bench, items_per_minute=items)
    assert len(await bench.claim(ada, bob, ada, bob, ada)) == handed_out
    assert await bench.claim(ada, bob) == []


async def test_what_went_back_is_free_again_and_what_was_settled_is_not(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    for _ in range(4):
        await bench.bucket(10)
    limit(bench, items_per_minute=20)
    first, second = await bench.claim(ada, ada)
    await bench.settle_one(submit(first, first.items[:4], final=True))
    (third,) = await bench.claim(bob)  # 14 are out
    assert await bench.claim(bob) == []
    await bench.settle(submit(second))
    await bench.settle(submit(third))
    assert await bench.claim(bob) == []


async def test_the_minute_slides(bench: Bench) -> None:
    ada = await bench.worker("ada")
    for _ in range(4):
        await bench.bucket(10)
    limit(bench, items_per_minute=20)
    await bench.claim(ada)
    await pass_seconds(bench, 40)
    await bench.claim(ada)
    assert await bench.claim(ada) == []
    why, seconds = await reason(bench, ada)
    assert why == "budget"
    assert seconds == pytest.approx(20, abs=3)
    await pass_seconds(bench, 21)
    assert await reason(bench, ada) == ("", None)
    assert len(await bench.claim(ada, ada)) == 1
    why, seconds = await reason(bench, ada)
    assert why == "budget"
    assert seconds == pytest.approx(39, abs=3)


async def test_no_more_buckets_are_held_at_a_time(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    for _ in range(6):
        await bench.bucket(1)
    limit(bench, max_claimed_buckets=3)
    first, *_ = await bench.claim(ada, bob, ada, bob)
    assert await bench.value("SELECT count(*) FROM bucket WHERE state = 'claimed'") == 3
    assert await bench.claim(bob) == []
    assert await reason(bench, bob) == ("budget", None)
    await bench.settle(submit(first))
    assert await reason(bench, bob) == ("", None)
    assert len(await bench.claim(bob, bob)) == 1


async def test_it_holds_for_a_bucket_beside_those_that_were_given_back(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada, age=99)
    await bench.release(mine)
    for _ in range(3):
        await bench.bucket(1)
    limit(bench, max_claimed_buckets=1)

    async def claim() -> Claimed | None:
        async with bench.database.connection() as db:
            return await claims.claim_unblocked(db, bench.service, ada.demand, bench.boot, bench.settings)

    assert await claim() is not None
    assert await claim() is None


@pytest.mark.parametrize("settings", [{"items_per_minute": 25}, {"max_claimed_buckets": 25}])
async def test_it_is_exact_though_many_nodes_claim_at_once(
    bench: Bench, database: Database, settings: dict[str, int]
) -> None:
    workers = [await bench.worker(f"client{n}") for n in range(8)]
    for _ in range(40):
        await bench.bucket(1)
    limit(bench, **settings)

    async def node(worker: Worker) -> int:
        """Claims one bucket after the other, as a node of its own does."""
        got = 0
        for _ in range(12):
            got += len(await bench.claim(worker))
        return got

    got = sum(await asyncio.gather(*map(node, workers)))
    assert got <= 25
    while more := len(await bench.claim(workers[0])):
        got += more
    assert got == 25


async def test_a_claim_that_is_under_way_is_counted(bench: Bench, database: Database) -> None:
    """Its transaction is open: whoever looks meanwhile finds nothing left, and does not wait for it."""
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    for _ in range(4):
        await bench.bucket(1)
    limit(bench, max_claimed_buckets=3)
    async with database.transaction() as other:
        first = await claims.claim(other, bench.service, [ada.demand] * 2, bench.boot, bench.settings)
        assert len(first.claimed) == 2
        assert await within(bench.claim(bob, bob), 5) == []
    assert len(await bench.claim(bob, bob)) == 1


async def test_without_a_budget_nobody_is_looked_at(bench: Bench) -> None:
    assert bench.settings == replace(bench.settings, items_per_minute=None, max_claimed_buckets=None)
    assert await bench.value("SELECT row(b.*)::text FROM budget_left($1, NULL, NULL) b", bench.service) == "(,)"
    assert not ServiceSettings().has_budget
