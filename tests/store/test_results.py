"""Results: stored once, under the current claim, all of a submit or nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from coordinator.errors import Conflict, NotOwner, StaleClaim, UnassignedItems, UnknownBucket
from coordinator.model import BucketId, Claimed
from coordinator.store.pool import Database
from coordinator.store.results import CheckedSubmit, SubmitOutcome
from tests.store.bench import NON_DM, WINDOW, Bench, Worker, submit


@pytest.fixture
async def ada(bench: Bench) -> Worker:
    return await bench.worker("ada")


def rows_of(*submits: CheckedSubmit) -> dict[tuple[int, int], object]:
    return {(item, one.claim): {"dm": "DM"} for one in submits for item, _ in one.rows}


# Many at once


async def test_many_submits_are_stored_together_each_with_its_own_answer(bench: Bench, ada: Worker) -> None:
    bob = await bench.worker("bob")
    whole, part, last = await bench.held(ada, 3), await bench.held(bob, 4), await bench.held(ada, 5)
    submits = submit(whole), submit(part, part.items[:1], final=False), submit(last, last.items[1:3])
    outcomes = await bench.settle(*submits)
    assert outcomes == [
        SubmitOutcome(stored=3, discarded=0, remaining=0, closed=True, duplicate=False, freed=False),
        SubmitOutcome(stored=1, discarded=0, remaining=3, closed=False, duplicate=False, freed=False),
        None,  # it gives a bucket back
    ]
    assert await bench.settle_one(submits[2]) == SubmitOutcome(
        stored=2, discarded=0, remaining=3, closed=True, duplicate=False, freed=True
    )
    assert await bench.stored() == rows_of(*submits)
    found = [await bench.of(one.bucket_id) for one in (whole, part, last)]
    assert [(row["state"], row["bits"], row["attempts"]) for row in found] == [
        ("done", "111", 0),
        ("claimed", "1000", 0),
        ("ready", "01100", 1),
    ]
    assert [await bench.ended(one.claim) for one in (whole, part, last)] == ["settled", None, "partial"]
    counted = await bench.rows("SELECT settled FROM claim ORDER BY claim_id")
    assert [row["settled"] for row in counted] == [3, 1, 2]


async def test_each_item_gets_its_own_value_whatever_others_have_the_same(bench: Bench, ada: Worker) -> None:
    await bench.execute("SELECT setval('item_item_id_seq', $1)", 2**40 + 255)
    claimed = await bench.held(ada, 40)
    values = [f'{{"text": "{"ä" * (n % 5)}"}}' for n in range(40)]
    whole = replace(submit(claimed), rows=list(zip(claimed.items, values, strict=True)))
    assert (await bench.settle(whole))[0] is not None
    assert await bench.stored() == {(item, claimed.claim): json.loads(value) for item, value in whole.rows}


async def test_a_bad_submit_among_good_ones_is_passed_over_and_the_good_ones_are_stored(
    bench: Bench, ada: Worker
) -> None:
    bob = await bench.worker("bob")
    good, stale, foreign = await bench.held(ada), await bench.held(bob), await bench.held(bob)
    await bench.cut_off(bob)
    await bench.forgive()
    taken = {one.bucket_id: one for one in await bench.claim(ada, ada)}
    settled = await bench.held(ada)
    await bench.settle(submit(settled))
    outcomes = await bench.settle(
        submit(stale),
        submit(good),
        submit(taken[foreign.bucket_id], by="bob"),
        submit(settled),
    )
    assert [outcome is not None for outcome in outcomes] == [False, True, False, False]
    assert await bench.stored() == rows_of(submit(good), submit(settled))
    assert (await bench.of(stale.bucket_id))["client_id"] == "ada"


async def test_a_final_submit_with_items_left_is_an_attempt_and_costs_what_a_release_costs(bench: Bench) -> None:
    ada, bob = await bench.of_standing("ada"), await bench.of_standing("bob")
    await bench.bucket(6)
    for attempt, worker in enumerate((ada, ada, ada, bob), 1):
        (mine,) = await bench.claim(worker)
        assert mine.attempts == attempt - 1
        await bench.settle_one(submit(mine, mine.items[attempt - 1 : attempt]))
        row = await bench.of(mine.bucket_id)
        assert row["attempts"] == attempt
        # One client has two of the three attempts at most, however often it fails.
        assert (row["due"] is None) == (worker is ada)
        assert await bench.value("SELECT times FROM return_block WHERE client_id = $1", worker.client_id)
        await bench.forgive()
    assert row["due"] == pytest.approx(WINDOW, abs=5)
    assert row["bits"] == "111100"
    assert await bench.claim(ada) == []
    member = await bench.member(ada)
    assert (member["given_back"], member["streak"]) == (3, 3)


async def test_who_leaves_no_more_than_it_settles_does_not_wait(bench: Bench, ada: Worker) -> None:
    for settled, streak in ((1, 1), (1, 2), (3, 3), (4, 1), (6, 1)):
        mine = await bench.held(ada, 8)
        await bench.settle_one(submit(mine, mine.items[:settled]))
        assert (await bench.member(ada))["streak"] == streak
        await bench.forgive()
        await bench.execute("UPDATE bucket SET rank_at = rank_at + interval '2 days' WHERE state = 'ready'")


# One by one, by every rule


async def test_one_submit_alone_ends_as_it_would_among_many(bench: Bench, ada: Worker) -> None:
    whole, part, last = [await bench.held(ada, 3) for _ in range(3)]
    submits = submit(whole), submit(part, part.items[:1], final=False), submit(last, last.items[:2])
    assert [await bench.settle_one(one) for one in submits] == [
        SubmitOutcome(stored=3, discarded=0, remaining=0, closed=True, duplicate=False, freed=False),
        SubmitOutcome(stored=1, discarded=0, remaining=2, closed=False, duplicate=False, freed=False),
        SubmitOutcome(stored=2, discarded=0, remaining=1, closed=True, duplicate=False, freed=True),
    ]
    assert await bench.stored() == rows_of(*submits)
    assert [await bench.ended(one.claim) for one in (whole, part, last)] == ["settled", None, "partial"]
    assert [row["settled"] for row in await bench.rows("SELECT settled FROM claim ORDER BY claim_id")] == [3, 1, 2]


async def test_a_repeat_is_a_duplicate_also_when_the_claim_has_ended(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    part = submit(mine, mine.items[:1], final=False)
    await bench.settle(part)
    again = await bench.settle_one(part)
    assert (again.stored, again.discarded, again.remaining, again.closed, again.duplicate) == (0, 0, 2, False, True)
    await bench.settle(submit(mine, mine.items[1:]))
    for repeat, left in ((part, 0), (submit(mine), 0)):
        again = await bench.settle_one(repeat)
        assert (again.stored, again.remaining, again.closed, again.duplicate) == (0, left, True, True)
    assert await bench.stored() == rows_of(submit(mine))
    assert await bench.value("SELECT settled FROM claim") == 3


async def test_a_repeat_counts_when_others_have_the_bucket_by_now(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    one = submit(mine, mine.items[:1])
    await bench.settle_one(one)
    (theirs,) = await bench.claim(await bench.worker("bob"))
    assert (await bench.settle_one(one)).duplicate
    assert (await bench.of(theirs.bucket_id))["client_id"] == "bob"


async def test_equal_content_may_be_written_otherwise(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    await bench.settle(submit(mine, value='{"a":1.0,"b":[1,2]}'))
    assert (await bench.settle_one(submit(mine, value=' {"b": [1, 2], "a": 1}'))).duplicate


async def test_a_final_repeat_of_what_was_stored_as_not_final_ends_the_claim(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    await bench.settle(submit(mine, mine.items[:1], final=False))
    ended = await bench.settle_one(submit(mine, mine.items[:1]))
    assert (ended.duplicate, ended.closed, ended.remaining, ended.freed) == (True, True, 2, True)
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["attempts"]) == ("ready", 1)


@pytest.mark.parametrize("ended", [False, True])
async def test_other_content_is_a_conflict_and_nothing_of_the_message_is_stored(
    bench: Bench, ada: Worker, ended: bool
) -> None:
    mine = await bench.held(ada)
    await bench.settle_one(submit(mine, mine.items[:1], final=ended))
    before = await bench.of(mine.bucket_id)
    with pytest.raises(Conflict):
        await bench.settle_one(submit(mine, value=NON_DM))
    assert await bench.stored() == rows_of(submit(mine, mine.items[:1]))
    assert (await bench.of(mine.bucket_id))["bits"] == before["bits"]


async def test_new_and_stored_items_mixed(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    await bench.settle(submit(mine, mine.items[:1], final=False))
    assert await bench.settle(submit(mine)) == [None]
    mixed = await bench.settle_one(submit(mine))
    assert (mixed.stored, mixed.discarded, mixed.remaining, mixed.closed, mixed.duplicate) == (2, 0, 0, True, False)
    assert await bench.stored() == rows_of(submit(mine))


async def test_new_items_under_an_ended_claim_are_stale_also_among_stored_ones(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    await bench.settle_one(submit(mine, mine.items[:1]))
    for chosen in (mine.items, mine.items[1:], mine.items[:0]):
        with pytest.raises(StaleClaim):
            await bench.settle_one(submit(mine, chosen))
    assert await bench.stored() == rows_of(submit(mine, mine.items[:1]))


async def test_who_may_submit(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    await bench.worker("bob")
    with pytest.raises(NotOwner):
        await bench.settle_one(submit(mine, by="bob"))
    with pytest.raises(StaleClaim):  # the bucket is hers, the number is not
        await bench.settle_one(_numbered(mine, mine.claim + 1))
    with pytest.raises(NotOwner):
        await bench.settle_one(_numbered(mine, mine.claim + 1, by="bob"))
    with pytest.raises(UnknownBucket):
        await bench.settle_one(_of_bucket(mine, BucketId(ada.session_id)))
    await bench.cut_off(ada)
    with pytest.raises(StaleClaim):
        await bench.settle_one(submit(mine))
    assert await bench.stored() == {}


def _numbered(claimed: Claimed, number: int, by: str | None = None) -> CheckedSubmit:
    one = submit(claimed, by=by)
    return CheckedSubmit(
        one.service_id, one.bucket_id, type(one.claim)(number), one.client_id, one.rows, one.mask, True
    )


def _of_bucket(claimed: Claimed, bucket: BucketId) -> CheckedSubmit:
    one = submit(claimed)
    return CheckedSubmit(one.service_id, bucket, one.claim, one.client_id, one.rows, one.mask, True)


async def test_items_that_were_not_handed_out_are_refused_by_name(bench: Bench, ada: Worker) -> None:
    mine, other = await bench.held(ada), await bench.held(ada)
    with pytest.raises(UnassignedItems) as refused:
        await bench.settle_one(submit(mine, [*mine.items, *other.items]))
    assert refused.value.detail == {"items": list(other.items)}
    await bench.settle_one(submit(mine, mine.items[:1]))
    await bench.forgive()
    (again,) = await bench.claim(ada)
    with pytest.raises(UnassignedItems) as refused:
        await bench.settle_one(submit(again, again.items))
    assert refused.value.detail == {"items": [mine.items[0]]}
    assert await bench.stored() == rows_of(submit(mine, mine.items[:1]))


async def test_deleted_items_are_discarded(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada, 4)
    await bench.delete(mine.items[:1])
    assert await bench.settle(submit(mine)) == [None]
    part = await bench.settle_one(submit(mine, mine.items[:2], final=False))
    assert (part.stored, part.discarded, part.remaining, part.duplicate) == (1, 1, 2, False)
    rest = await bench.settle_one(submit(mine, mine.items[2:]))
    assert (rest.stored, rest.discarded, rest.closed) == (2, 0, True)
    assert await bench.stored() == rows_of(submit(mine, mine.items[1:]))


async def test_a_repeat_with_an_item_deleted_since_is_a_repeat(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada)
    await bench.settle(submit(mine))
    await bench.delete(mine.items[:1])
    again = await bench.settle_one(submit(mine))
    assert (again.stored, again.discarded, again.duplicate) == (0, 1, True)
    assert await bench.stored() == rows_of(submit(mine, mine.items[1:]))


async def test_settling_in_one_service_does_not_end_the_waits_of_another(bench: Bench, ada: Worker) -> None:
    other = await Bench.make(bench.database, "other")
    await other.worker("ada")
    for settle in (bench.settle_one, bench.settle):
        mine = await bench.held(ada)
        await bench.execute("UPDATE membership SET streak = 4")
        await settle(submit(mine))
        assert (await bench.member(ada))["streak"] == 0
        assert (await other.member(ada))["streak"] == 4


# At the same time


async def test_the_same_submit_from_many_connections_is_stored_once(bench: Bench, ada: Worker) -> None:
    for _ in range(10):
        mine = await bench.held(ada)
        await asyncio.gather(*(_like_commits(bench, submit(mine)) for _ in range(6)))
        assert await bench.value("SELECT count(*) FROM result WHERE claim_id = $1", mine.claim) == 3
        assert await bench.value("SELECT settled FROM claim WHERE claim_id = $1", mine.claim) == 3


async def _like_commits(bench: Bench, one: CheckedSubmit) -> SubmitOutcome:
    (outcome,) = await bench.settle(one)
    return outcome or await bench.settle_one(one)


async def test_parts_of_a_bucket_that_arrive_together_are_all_stored(bench: Bench, ada: Worker) -> None:
    """A bucket's parts come one by one from a node, but its client may have sessions on two."""
    for final in (False, True):
        mine = await bench.held(ada, 12)
        async with bench.database.transaction() as db:
            await db.fetch("SELECT FROM bucket WHERE bucket_id = $1 FOR UPDATE", mine.bucket_id)
            parts = [
                asyncio.ensure_future(bench.settle_one(submit(mine, mine.items[at : at + 3], final=False)))
                for at in (0, 3, 6)
            ]
        await asyncio.gather(*parts)
        last = await bench.settle_one(submit(mine, mine.items[9:], final=final))
        assert (last.stored, last.remaining, last.closed) == (3, 0, True)
        assert await bench.value("SELECT count(*) FROM result WHERE claim_id = $1", mine.claim) == 12


async def test_of_a_release_and_a_submit_at_once_one_comes_first(bench: Bench, database: Database) -> None:
    for turn in range(10):
        ada = await bench.worker("ada")
        mine = await bench.held(ada)
        steps = [bench.settle(submit(mine)), bench.cut_off(ada)]
        await asyncio.gather(*(steps if turn % 2 else steps[::-1]))
        stored = await bench.value("SELECT count(*) FROM result WHERE claim_id = $1", mine.claim)
        row = await bench.of(mine.bucket_id)
        assert (stored, row["state"]) in ((3, "done"), (0, "ready"))
        await bench.execute("UPDATE bucket SET rank_at = rank_at + interval '1 hour'")
        await bench.forgive()
