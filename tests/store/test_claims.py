"""Claims: each bucket to one holder, the front of the pool first, whatever runs at the same time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from uuid import UUID

import asyncpg
import pytest

from coordinator.model import Claimed, ClaimNumber
from coordinator.store import claim_lookup, claims
from coordinator.store.pool import Database
from tests.store.bench import Bench, Worker


async def test_claims_go_by_rank(bench: Bench) -> None:
    ada = await bench.worker("ada")
    await bench.bucket(1, age=10)
    oldest = await bench.bucket(1, age=90)
    same = [await bench.bucket(1, age=50) for _ in range(6)]
    await bench.execute(
        "UPDATE bucket SET rank_at = (SELECT min(rank_at) FROM bucket WHERE bucket_id = ANY ($1)) "
        "WHERE bucket_id = ANY ($1)",
        same,
    )
    got = [(await bench.claim(ada))[0].bucket_id for _ in range(7)]
    assert got[0] == oldest
    assert set(got[1:]) == set(same)


async def test_a_returned_bucket_keeps_its_rank_and_draws_a_new_shuffle_number(bench: Bench) -> None:
    ada = await bench.worker("ada")
    bucket = await bench.bucket(2, age=60)
    before = await bench.of(bucket)
    (claimed,) = await bench.claim(ada)
    await bench.release(claimed)
    after = await bench.of(bucket)
    assert after["rank_at"] == before["rank_at"]
    assert after["shuffle"] != before["shuffle"]


@pytest.mark.parametrize(("ready", "asked"), [(5, 3), (3, 5), (0, 2), (4, 4)])
async def test_never_more_than_asked_and_never_less_than_there_is(bench: Bench, ready: int, asked: int) -> None:
    ada = await bench.worker("ada")
    for _ in range(ready):
        await bench.bucket(1)
    got = await bench.claim(*[ada] * asked)
    assert len(got) == min(ready, asked)
    assert await bench.value("SELECT count(*) FROM bucket WHERE state = 'claimed'") == len(got)
    assert await bench.value("SELECT count(*) FROM claim") == len(got)


async def test_demands_are_served_in_their_order(bench: Bench) -> None:
    ada, bob, cleo = [await bench.worker(name) for name in ("ada", "bob", "cleo")]
    first = await bench.bucket(1, age=20)
    second = await bench.bucket(1, age=10)
    got = {one.bucket_id: one.client_id for one in await bench.claim(cleo, ada, bob)}
    assert got == {first: "cleo", second: "ada"}


async def test_a_claim_says_what_it_hands_out(bench: Bench) -> None:
    ada = await bench.worker("ada")
    items = await bench.items(3)
    bucket = await bench.bucket(items)
    await bench.execute("UPDATE bucket SET settled = B'010' WHERE bucket_id = $1", bucket)
    (claimed,) = await bench.claim(ada)
    assert (claimed.items, claimed.settled, claimed.session_id) == (tuple(items), "010", ada.session_id)
    row = await bench.row("SELECT *, given::text AS bits FROM claim WHERE claim_id = $1", claimed.claim)
    assert (row["bits"], row["bucket_id"], row["client_id"], row["session_id"], row["boot"], row["ended"]) == (
        "101", bucket, "ada", ada.session_id, bench.boot, None,
    )  # fmt: skip


async def test_a_claim_passes_over_what_another_transaction_works_on(bench: Bench, database: Database) -> None:
    ada = await bench.worker("ada")
    worked_on = await bench.bucket(1, age=60)
    free = await bench.bucket(1, age=10)
    async with database.transaction() as other:
        await other.fetch("SELECT FROM bucket WHERE bucket_id = $1 FOR UPDATE", worked_on)
        got = await asyncio.wait_for(bench.claim(ada, ada), 5)
    assert [one.bucket_id for one in got] == [free]


async def test_buckets_of_other_services_and_those_set_aside_are_not_handed_out(
    bench: Bench, database: Database
) -> None:
    other = await Bench.make(database, "other")
    await other.bucket(1)
    broken = await bench.bucket(1)
    await bench.execute("UPDATE bucket SET split_at = now() - interval '1 hour' WHERE bucket_id = $1", broken)
    assert await bench.claim(await bench.worker("ada")) == []


async def test_however_many_claim_at_once_no_bucket_goes_to_two(bench: Bench, dsn: str) -> None:
    """Ten connections claim, give back without cost, and settle; each bucket's claims are one after the other."""
    buckets, rounds = 40, 12
    for _ in range(buckets):
        await bench.bucket(2)
    workers = [await bench.worker(f"w{n}") for n in range(10)]
    handed: defaultdict[UUID, list[int]] = defaultdict(list)
    holders: dict[UUID, Worker] = {}
    many = Database(dsn, size=10)
    await many.open()

    async def work(place: int, worker: Worker) -> None:
        for turn in range(rounds):
            async with many.connection() as db:
                got = (await claims.claim(db, bench.service, [worker.demand] * (1 + place % 4), bench.boot)).claimed
            for one in got:
                assert one.bucket_id not in holders
                holders[one.bucket_id] = worker
                handed[one.bucket_id].append(one.claim)
            await asyncio.sleep(0)
            for one in got:
                del holders[one.bucket_id]
            async with many.connection() as db:
                for one in got[: None if turn % 3 else 1]:
                    await claims.release_claim(db, one.bucket_id, one.claim, claims.UNDELIVERED, 0.0)
                freed = await claims.release_session(
                    db, worker.client_id, worker.session_id, claims.UNDELIVERED, 0.0, []
                )
                assert len(freed) == len(got) - len(got[: None if turn % 3 else 1])

    await asyncio.gather(*(work(place, worker) for place, worker in enumerate(workers)))
    await many.close()
    assert sum(len(numbers) > 1 for numbers in handed.values()) > 10
    for bucket, numbers in handed.items():
        assert numbers == sorted(set(numbers))
        assert (await bench.of(bucket))["claim_id"] == numbers[-1]


async def test_a_client_that_has_to_wait_is_not_served_and_told_how_long(bench: Bench) -> None:
    ada, bob, cleo = [await bench.worker(name) for name in ("ada", "bob", "cleo")]
    await bench.bucket(1)
    await bench.execute("UPDATE membership SET wait_until = now() + interval '50 s' WHERE client_id = 'ada'")
    await bench.execute(
        """UPDATE membership SET report_until = now() + interval '70 s', wait_until = now() - interval '9 s'
            WHERE client_id = 'bob'"""
    )
    assert await bench.claim(ada, bob) == []
    async with bench.database.connection() as db:
        assert await claims.claim_unblocked(db, bench.service, ada.demand, bench.boot) is None
        waits = {
            one.client_id: one
            for one in await claims.find_waits(db, bench.service, [ada.client_id, bob.client_id, cleo.client_id])
        }
    assert waits[ada.client_id].seconds == pytest.approx(50, abs=5)
    assert waits[bob.client_id].seconds == pytest.approx(70, abs=5)
    assert waits[cleo.client_id].seconds is None
    assert not any(wait.has_blocks for wait in waits.values())
    await bench.execute("UPDATE membership SET wait_until = NULL WHERE client_id = 'ada'")
    assert len(await bench.claim(ada)) == 1


async def test_who_gave_a_bucket_back_gets_others_but_not_that_one(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    mine = await bench.held(ada, age=99)
    await bench.release(mine)
    other = await bench.bucket(1)
    async with bench.database.connection() as db:
        (wait,) = await claims.find_waits(db, bench.service, [ada.client_id])
        assert wait.has_blocks
        assert await bench.claim(ada) == []
        got = await claims.claim_unblocked(db, bench.service, ada.demand, bench.boot)
        assert got is not None
        assert got.bucket_id == other
        assert await claims.claim_unblocked(db, bench.service, ada.demand, bench.boot) is None
    assert [one.bucket_id for one in await bench.claim(bob)] == [mine.bucket_id]


async def test_after_the_time_a_client_is_offered_again_what_it_gave_back(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    await bench.release(mine)
    await bench.execute("UPDATE return_block SET until = now()")
    (again,) = await bench.claim(ada)
    assert again.bucket_id == mine.bucket_id
    assert again.claim > mine.claim


async def _illegal(bench: Bench, change: str, claimed: Claimed) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await bench.execute(f"UPDATE bucket SET {change} WHERE bucket_id = $1", claimed.bucket_id)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'ready'",
        "state = 'done'",
        "state = 'lost'",
        "client_id = NULL",
        "touched_at = NULL",
        "session_id = NULL",
        "kept_until = now()",
        "split_at = now()",
        "settled = B'111'",
        "attempts = -1",
    ],
)
async def test_the_schema_refuses_impossible_claimed_buckets(bench: Bench, change: str) -> None:
    await _illegal(bench, change, await bench.held(await bench.worker("ada"), 3))


@pytest.mark.parametrize(
    "change",
    [
        "state = 'claimed'",
        "client_id = 'ada'",
        "session_id = gen_random_uuid()",
        "boot = 1",
        "touched_at = now()",
        "kept_until = now()",
        "settled = B'111'",
    ],
)
async def test_the_schema_refuses_impossible_ready_buckets(bench: Bench, change: str) -> None:
    claimed = await bench.held(await bench.worker("ada"), 3)
    await bench.release(claimed)
    await _illegal(bench, change, claimed)


async def test_the_schema_refuses_impossible_claims(bench: Bench) -> None:
    claimed = await bench.held(await bench.worker("ada"), 3)
    for change in ("ended = 'settled'", "ended_at = now()", "ended = 'tired', ended_at = now()"):
        with pytest.raises(asyncpg.CheckViolationError):
            await bench.execute(f"UPDATE claim SET {change} WHERE claim_id = $1", claimed.claim)


async def test_what_is_known_of_a_bucket_and_a_claim(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    first = await bench.held(ada, 2)
    await bench.release(first)
    (second,) = await bench.claim(bob)
    async with bench.database.connection() as db:
        known = await claim_lookup.find_claim(db, first.bucket_id, first.claim)
        assert known is not None
        assert (known.holder, known.current, known.claimed_by, known.items) == (
            "bob", second.claim, "ada", first.items,
        )  # fmt: skip
        stranger = await claim_lookup.find_claim(db, first.bucket_id, ClaimNumber(10**12))
        assert stranger is not None
        assert (stranger.claimed_by, stranger.given) == (None, "")
        assert await claim_lookup.ever_held(db, first.bucket_id, ada.client_id)
        assert not await claim_lookup.ever_held(db, first.bucket_id, (await bench.worker("cleo")).client_id)
        assert await claims.held_count(db, bob.client_id, bench.service) == 1
        assert await claims.held_count(db, ada.client_id, bench.service) == 0


def test_chance_is_drawn_for_all_that_a_claim_looks_at() -> None:
    """A statement cannot name a constant of Python; the random bytes are as many as the buckets of the front."""
    assert f"LIMIT $5 + {claims.FRONT_BUCKETS})" in claims._CLAIM
    assert f"LIMIT {claims.FRONT_BUCKETS})" in claims._CLAIM_UNBLOCKED
