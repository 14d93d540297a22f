"""Asking and giving back, again and again, leads a client to a chosen item no sooner than chance does.

Twenty buckets of one rank.  The counts are binomial; a fair coordinator fails such a test less than once in a million
runs, since the bounds are five standard deviations away.
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import pytest

from coordinator.model import BucketId
from coordinator.store import claims
from coordinator.store.pool import Database

from .bench import WINDOW, Bench, Worker

POOL = 20
TRIES = 600
DEVIATIONS = 5.0


def assert_by_chance(hits: int, tries: int, probability: float) -> None:
    expected, spread = tries * probability, sqrt(tries * probability * (1 - probability))
    assert abs(hits - expected) < DEVIATIONS * spread, (hits, expected, spread)


async def a_pool(bench: Bench) -> list[BucketId]:
    """Buckets of exactly the same rank, as those of one run of the builder are."""
    made = [await bench.bucket(1) for _ in range(POOL)]
    await bench.execute("UPDATE bucket SET rank_at = now() WHERE service_id = $1", bench.service)
    return made


async def ask_and_return(bench: Bench, database: Database, worker: Worker, way: claims.EndReason) -> BucketId:
    (claimed,) = await bench.claim(worker)
    async with database.connection() as db:
        await claims.release_claim(db, claimed.bucket_id, claimed.claim, way, WINDOW)
    await bench.forgive()  # as if all waits were over: the most that a patient client could do
    return claimed.bucket_id


@pytest.mark.long
async def test_the_chosen_bucket_comes_no_more_often_than_any_other(bench: Bench, database: Database) -> None:
    target = (await a_pool(bench))[0]
    worker = await bench.worker("hunter")
    got = [await ask_and_return(bench, database, worker, claims.RELEASED) for _ in range(TRIES)]
    assert_by_chance(got.count(target), TRIES, 1 / POOL)


@pytest.mark.long
async def test_what_was_returned_tells_nothing_of_what_comes_next(bench: Bench, database: Database) -> None:
    await a_pool(bench)
    worker = await bench.worker("hunter")
    got = [await ask_and_return(bench, database, worker, claims.RELEASED) for _ in range(TRIES)]
    assert_by_chance(sum(a == b for a, b in pairwise(got)), TRIES - 1, 1 / POOL)
    assert_by_chance(sum(a == b for a, b in zip(got, got[2:], strict=False)), TRIES - 2, 1 / POOL)


@pytest.mark.long
async def test_another_client_does_not_get_what_this_one_returned(bench: Bench, database: Database) -> None:
    """Two that work together cannot pass a bucket on to each other."""
    await a_pool(bench)
    one, other = await bench.worker("one"), await bench.worker("other")
    passed = 0
    for _ in range(TRIES // 2):
        returned = await ask_and_return(bench, database, one, claims.RELEASED)
        passed += returned == await ask_and_return(bench, database, other, claims.RELEASED)
    assert_by_chance(passed, TRIES // 2, 1 / POOL)


async def test_within_the_time_of_its_block_a_client_gets_each_bucket_once(bench: Bench, database: Database) -> None:
    """So it draws without putting back, and pays with a wait for each draw from the second on."""
    await a_pool(bench)
    worker = await bench.worker("hunter")
    seen = []
    for turn in range(POOL):
        await bench.execute("UPDATE membership SET wait_until = NULL WHERE client_id = $1", worker.client_id)
        async with database.connection() as db:
            claimed = await claims.claim_unblocked(db, bench.service, worker.demand, bench.boot, bench.settings)
            assert claimed is not None
            await claims.release_claim(db, claimed.bucket_id, claimed.claim, claims.RELEASED, WINDOW)
        seen.append(claimed.bucket_id)
        waits = (await bench.member(worker))["wait_until"] is not None
        assert waits is (turn > 0)
    assert len(set(seen)) == POOL
