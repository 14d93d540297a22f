"""Claims: each bucket to one holder, the front of the pool first, whatever runs at the same time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from coordinator.flow.wait_reasons import wait_of_client
from coordinator.model import Claimed, ClaimNumber, ClientId, Service, ServiceId, ServiceSettings, Wait
from coordinator.store import claim_lookup, claims, waits
from coordinator.store.pool import Database
from coordinator.store.waits import WaitFacts
from tests.bounded import within
from tests.store.bench import Bench, Worker


def wait_of(facts: WaitFacts) -> Wait | None:
    service = Service(ServiceId(1), "probe", "dm_check", "probe", "active", ServiceSettings())
    return wait_of_client(service, facts, draining=False)


def reasons(found: Mapping[ClientId, WaitFacts]) -> list[str | None]:
    """The reason for which each of them waits."""
    waits = map(wait_of, found.values())
    return [None if wait is None else wait.reason for wait in waits]


def seconds(facts: WaitFacts) -> float:
    """How long it has to wait."""
    wait = wait_of(facts)
    assert wait is not None
    assert wait.until is not None
    return (wait.until - facts.at).total_seconds()


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
        got = await within(bench.claim(ada, ada), 5)
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
                demands = [worker.demand] * (1 + place % 4)
                got = (await claims.claim(db, bench.service, demands, bench.boot, bench.settings)).claimed
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
        assert await claims.claim_unblocked(db, bench.service, ada.demand, bench.boot, bench.settings) is None
        found = await waits.find_waits(db, bench.service, [ada.demand, bob.demand, cleo.demand], bench.settings)
    assert reasons(found) == ["backing_off", "reported", None]
    assert seconds(found[ada.client_id]) == pytest.approx(50, abs=5)
    assert seconds(found[bob.client_id]) == pytest.approx(70, abs=5)
    await bench.execute("UPDATE membership SET wait_until = NULL WHERE client_id = 'ada'")
    assert len(await bench.claim(ada)) == 1


async def test_who_gave_a_bucket_back_gets_others_but_not_that_one(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    mine = await bench.held(ada, age=99)
    await bench.release(mine)
    other = await bench.bucket(1)
    async with bench.database.connection() as db:
        found = await waits.find_waits(db, bench.service, [ada.demand], bench.settings)
        assert (found[ada.client_id].returned, reasons(found)) == (True, [None])
        assert await bench.claim(ada) == []
        got = await claims.claim_unblocked(db, bench.service, ada.demand, bench.boot, bench.settings)
        assert got is not None
        assert got.bucket_id == other
        assert await claims.claim_unblocked(db, bench.service, ada.demand, bench.boot, bench.settings) is None
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


def test_chance_is_drawn_for_all_that_a_claim_looks_at() -> None:
    """A statement cannot name a constant of Python; the random bytes are as many as the buckets of the front."""
    assert f"LIMIT $5 + {claims.FRONT_BUCKETS})" in claims._CLAIM
    assert f"LIMIT {claims.FRONT_BUCKETS})" in claims._CLAIM_UNBLOCKED


# What a client may hold


async def test_of_two_claims_for_one_client_at_once_one_serves_it_and_neither_waits(
    bench: Bench, database: Database
) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    for _ in range(6):
        await bench.bucket(1)
    bench.settings = ServiceSettings(max_held_buckets=2, newcomer_buckets=2)
    async with database.transaction() as other:
        first = await claims.claim(other, bench.service, [ada.demand] * 3, bench.boot, bench.settings)
        second = await within(bench.claim(ada, bob, ada), 5)
        assert [one.client_id for one in first.claimed] == ["ada", "ada"]
        assert [one.client_id for one in second] == ["bob"]
    assert await bench.claim(ada) == []
    async with database.connection() as db:
        found = await waits.find_waits(db, bench.service, [ada.demand], bench.settings)
    assert reasons(found) == ["at_limit"]


@pytest.mark.parametrize(
    ("change", "may", "reason"),
    [
        ("settled = 0", 2, "newcomer"),
        ("settled = 179", 2, "newcomer"),
        ("settled = 180", 4, "newcomer"),
        ("settled = 540", 16, "newcomer"),
        ("settled = 10000000", 20, "at_limit"),
        ("settled = 540, taken_back = 540", 2, "newcomer"),
        ("settled = 540, taken_back = 700", 2, "newcomer"),
        ("settled = 540, streak = 2", 16, "newcomer"),
        ("settled = 540, streak = 4", 4, "newcomer"),
        ("settled = 540, streak = 99", 1, "at_limit"),
        ("settled = 540, health = 'flagged', health_reason = 'a test'", 1, "at_limit"),
    ],
)
async def test_how_many_buckets_a_client_may_hold(bench: Bench, change: str, may: int, reason: str) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    bench.settings = ServiceSettings()
    await bench.execute(f"UPDATE membership SET {change} WHERE client_id = 'ada'")
    for _ in range(may + 3):
        await bench.bucket(1)
    assert len(await bench.claim(*[ada] * (may + 2), bob)) == may + 1  # the other one is served all the same
    async with bench.database.connection() as db:
        found = await waits.find_waits(db, bench.service, [ada.demand], bench.settings)
    assert reasons(found) == [reason]


async def test_of_two_claims_for_newcomers_of_one_block_at_once_one_serves_them_and_neither_waits(
    bench: Bench, database: Database
) -> None:
    """Else they could hold as many on each node."""
    crowd = [replace(await bench.worker(f"crowd{n}"), address="203.0.113.9").demand for n in range(2)]
    other = replace(await bench.worker("other"), address="203.0.113.10").demand
    for _ in range(3):
        await bench.bucket(1)
    async with database.transaction() as first, database.transaction() as second:
        (mine,) = (await claims.claim(first, bench.service, crowd[:1], bench.boot, bench.settings)).claimed
        later = claims.claim(second, bench.service, [crowd[1], other], bench.boot, bench.settings)
        assert mine.client_id == "crowd0"
        assert [one.client_id for one in (await within(later, 5)).claimed] == ["other"]


async def test_newcomers_of_one_block_may_hold_so_many_together(bench: Bench) -> None:
    here = [replace(await bench.worker(f"here{n}"), address="203.0.113.9") for n in range(40)]
    for worker in here:
        await bench.execute(
            "INSERT INTO session (session_id, client_id, boot, address) VALUES ($1, $2, $3, $4)",
            worker.session_id,
            worker.client_id,
            bench.boot,
            worker.address,
        )
    there = replace(await bench.worker("there"), address="2001:db8::/64")
    known = replace(await bench.of_standing("known"), address="203.0.113.9")
    for _ in range(100):
        await bench.bucket(1)
    bench.settings = ServiceSettings()
    got = await bench.claim(*here, *here, there, known)
    assert len(got) == 64 + 2
    assert await bench.claim(here[-1]) == []
    async with bench.database.connection() as db:
        found = await waits.find_waits(db, bench.service, [here[-1].demand, there.demand], bench.settings)
    assert reasons(found) == ["newcomer", None]

    await bench.execute(
        "INSERT INTO newcomer_block (block, service_id, streak, last_at, wait_until)"
        " VALUES ('203.0.113.9', $1, 25, now(), now() + interval '9 s')",
        bench.service,
    )
    async with bench.database.connection() as db:
        found = await waits.find_waits(db, bench.service, [here[0].demand, known.demand], bench.settings)
    assert reasons(found) == ["backing_off", None]
    assert seconds(found[here[0].client_id]) == pytest.approx(9, abs=3)
