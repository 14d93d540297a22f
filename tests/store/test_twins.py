"""Items that were prioritised while a client had them stand in two open buckets; the first valid result counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from coordinator.model import Claimed, ItemId
from coordinator.store import claims, recollects
from tests.store.bench import DM, Bench, Worker, submit


@dataclass
class Pair:
    """`first` was claimed when the middle one of its three items was prioritised; `second` is the urgent bucket."""

    item: ItemId
    first: Claimed
    second: Claimed


@pytest.fixture
async def ada(bench: Bench) -> Worker:
    return await bench.worker("ada")


@pytest.fixture
async def bob(bench: Bench) -> Worker:
    return await bench.worker("bob")


async def _pair(bench: Bench, first: Worker, second: Worker) -> Pair:
    mine = await bench.held(first, 3)
    item = mine.items[1]
    # One more item, so that the urgent bucket is not over with this one.
    (spare,) = await bench.items(1)
    urgent = await bench.prioritize([item, spare])
    (claimed,) = await bench.claim(second)
    assert claimed.bucket_id == urgent
    return Pair(item, mine, claimed)


async def test_the_claimed_copy_and_the_urgent_copy_both_go_on(bench: Bench, ada: Worker, bob: Worker) -> None:
    pair = await _pair(bench, ada, bob)
    assert await bench.places(pair.item) == ["claimed", "claimed"]
    assert await bench.value("SELECT count(*) FROM twin") == 1


async def test_the_first_result_counts_and_the_second_is_discarded(bench: Bench, ada: Worker, bob: Worker) -> None:
    pair = await _pair(bench, ada, bob)
    assert await bench.settle(submit(pair.second, [pair.item], final=False)) == [None]
    first = await bench.settle_one(submit(pair.second, [pair.item], final=False))
    assert (first.stored, first.discarded, first.remaining) == (1, 0, 1)
    second = await bench.settle_one(submit(pair.first))
    assert (second.stored, second.discarded, second.remaining, second.closed) == (2, 1, 0, True)
    assert [claim for item, claim in await bench.stored() if item == pair.item] == [pair.second.claim]
    assert await bench.value("SELECT count(*) FROM twin") == 0


async def test_the_discarded_copy_may_be_submitted_again(bench: Bench, ada: Worker, bob: Worker) -> None:
    """The answer to a submit may be lost; its repeat must not tell the client that it lost its claim."""
    pair = await _pair(bench, ada, bob)
    await bench.settle_one(submit(pair.second, [pair.item], final=False))
    await bench.settle_one(submit(pair.first))
    again = await bench.settle_one(submit(pair.first))
    assert (again.stored, again.discarded, again.closed, again.duplicate) == (0, 1, True, True)


async def test_a_ready_copy_gives_the_item_up_when_the_other_is_settled(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada, 3)
    urgent = await bench.prioritize([mine.items[1], *await bench.items(1)])
    assert urgent is not None
    assert await bench.places(mine.items[1]) == ["claimed", "ready"]
    await bench.settle_one(submit(mine, mine.items[1:2], final=False))
    assert await bench.places(mine.items[1]) == []
    row = await bench.of(urgent)
    assert (row["state"], row["bits"].count("1")) == ("ready", 1)
    await bench.settle_one(submit(mine))
    (rest,) = await bench.claim(ada)
    assert mine.items[1] not in [i for i, bit in zip(rest.items, rest.settled, strict=True) if bit == "0"]


async def test_a_ready_copy_that_is_empty_by_that_is_done(bench: Bench, ada: Worker) -> None:
    mine = await bench.held(ada, 3)
    urgent = await bench.prioritize(mine.items[1:2])
    assert urgent is not None
    await bench.settle_one(submit(mine))
    assert (await bench.of(urgent))["state"] == "done"
    assert await bench.claim(ada) == []


async def test_a_final_submit_with_items_left_settles_the_ready_copy_too(bench: Bench, ada: Worker) -> None:
    """By then both buckets are ready; the item must leave the one where it is still open."""
    for _ in range(12):  # which of the two is looked at first is chance
        mine = await bench.held(ada, 3)
        item = mine.items[1]
        assert await bench.prioritize([item, *await bench.items(1)]) is not None
        await bench.settle_one(submit(mine, [item]))
        assert await bench.places(item) == []
        assert await bench.value("SELECT count(*) FROM twin") == 0
        await bench.execute("UPDATE bucket SET rank_at = rank_at + interval '2 days'")
        await bench.forgive()


async def test_the_returned_copy_gives_the_item_up(bench: Bench, ada: Worker, bob: Worker) -> None:
    pair = await _pair(bench, ada, bob)
    await bench.cut_off(ada)
    assert await bench.places(pair.item) == ["claimed"]
    assert (await bench.of(pair.first.bucket_id))["bits"] == "010"
    assert (await bench.settle_one(submit(pair.second))).stored == 2
    assert await bench.places(pair.item) == []


async def test_a_copy_that_comes_back_after_the_other_was_settled_is_not_handed_out_again(
    bench: Bench, ada: Worker, bob: Worker
) -> None:
    pair = await _pair(bench, ada, bob)
    await bench.settle_one(submit(pair.second, [pair.item], final=False))
    await bench.release(pair.first, claims.UNDELIVERED)
    assert await bench.places(pair.item) == []


@pytest.mark.parametrize("settled", ["first", "second"])
@pytest.mark.parametrize("back", ["released", "final"])
async def test_when_the_settled_copy_comes_back_the_other_ones_result_is_still_discarded(
    bench: Bench, ada: Worker, bob: Worker, settled: str, back: str
) -> None:
    pair = await _pair(bench, ada, bob)
    done, other = (pair.first, pair.second) if settled == "first" else (pair.second, pair.first)
    await bench.settle_one(submit(done, [pair.item], final=back == "final"))
    if back == "released":
        await bench.release(done)
    late = await bench.settle_one(submit(other))
    assert (late.stored, late.discarded, late.closed) == (len(other.items) - 1, 1, True)
    assert sum(item == pair.item for item, _ in await bench.stored()) == 1


async def test_both_copies_back_at_once_leave_the_item_in_one(bench: Bench, ada: Worker) -> None:
    pair = await _pair(bench, ada, ada)
    await bench.cut_off(ada)
    assert await bench.places(pair.item) == ["ready"]


async def test_who_is_cut_off_with_copies_and_other_buckets_pays_once(bench: Bench, ada: Worker) -> None:
    await _pair(bench, ada, ada)
    await bench.held(ada)
    assert len(await bench.cut_off(ada)) == 3
    member = await bench.member(ada)
    assert (member["streak"], member["disconnects"]) == (1, 1)
    assert await bench.value("SELECT sum(times) FROM return_block") == 3


async def test_both_copies_back_at_once_after_one_was_settled_leave_it_in_none(bench: Bench, ada: Worker) -> None:
    for settled in range(12):
        pair = await _pair(bench, ada, ada)
        claimed = pair.second if settled % 2 else pair.first
        await bench.settle_one(submit(claimed, [pair.item], final=False))
        await bench.cut_off(ada)
        assert await bench.places(pair.item) == []
        await bench.forgive()
        await bench.execute("UPDATE bucket SET attempts = 0, rank_at = rank_at + interval '3 days'")


async def test_prioritising_again_makes_no_third_copy(bench: Bench, ada: Worker, bob: Worker) -> None:
    pair = await _pair(bench, ada, bob)
    assert await bench.prioritize([pair.item]) is None
    assert await bench.places(pair.item) == ["claimed", "claimed"]


async def test_a_deleted_item_leaves_both_copies(bench: Bench, ada: Worker, bob: Worker) -> None:
    pair = await _pair(bench, ada, bob)
    await bench.delete([pair.item])
    assert await bench.places(pair.item) == []
    assert await bench.value("SELECT count(*) FROM twin") == 0
    first, second = await bench.settle_one(submit(pair.first)), await bench.settle_one(submit(pair.second))
    assert (first.stored, first.discarded, second.stored, second.discarded) == (2, 1, 1, 1)


async def test_the_same_item_settled_through_both_at_once_is_stored_once(
    bench: Bench, ada: Worker, bob: Worker
) -> None:
    for _ in range(5):
        pair = await _pair(bench, ada, bob)
        outcomes = await asyncio.gather(
            bench.settle_one(submit(pair.first, value=DM)), bench.settle_one(submit(pair.second, value=DM))
        )
        assert sum(one.discarded for one in outcomes) == 1
        assert sum(item == pair.item for item, _ in await bench.stored()) == 1


async def test_a_settled_item_is_checked_again_though_a_client_still_has_its_other_copy(
    bench: Bench, ada: Worker, bob: Worker
) -> None:
    pair = await _pair(bench, ada, bob)
    await bench.settle_one(submit(pair.second, [pair.item]))
    assert await bench.places(pair.item) == ["claimed"]
    assert await bench.prioritize([pair.item]) is not None
    assert await bench.places(pair.item) == ["claimed", "ready"]
    late = await bench.settle_one(submit(pair.first))
    assert (late.stored, late.discarded, late.closed) == (3, 0, True)
    assert await bench.places(pair.item) == []
    stored = {claim for item, claim in await bench.stored() if item == pair.item}
    assert stored == {pair.first.claim, pair.second.claim}


@pytest.mark.parametrize("way", ["taken over", "kept"])
async def test_what_was_settled_meanwhile_is_not_handed_out_again_by_a_recollect(
    bench: Bench, ada: Worker, bob: Worker, way: str
) -> None:
    pair = await _pair(bench, ada, bob)
    await bench.settle_one(submit(pair.second, [pair.item]))
    if way == "kept":
        async with bench.database.connection() as db:
            await recollects.keep_for_reconnect(db, [ada.session_id], 60.0)
    (back,) = await bench.recollect(await bench.worker("ada"), [pair.first.bucket_id])
    assert back.claimed.settled == "010"
    assert await bench.value("SELECT count(*) FROM twin") == 0
    outcome = await bench.settle_one(submit(back.claimed))
    assert (outcome.stored, outcome.discarded, outcome.closed) == (2, 0, True)


async def test_a_recollect_never_hands_out_an_empty_bucket(bench: Bench, ada: Worker, bob: Worker) -> None:
    mine = await bench.held(ada, 1)
    urgent = await bench.prioritize(mine.items)
    (claimed,) = await bench.claim(bob)
    assert claimed.bucket_id == urgent
    await bench.settle_one(submit(claimed))
    (back,) = await bench.recollect(await bench.worker("ada"), [mine.bucket_id])
    assert back.claimed.settled == "0"
    outcome = await bench.settle_one(submit(back.claimed))
    assert (outcome.stored, outcome.discarded, outcome.closed) == (0, 1, True)
