"""Buckets that break clients are cut up, 180 → 20 → 1, until the guilty item stands alone; it goes to quarantine."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from coordinator.flow.bucket_builder import BuildReason
from coordinator.model import Claimed, ItemId
from coordinator.store import claim_history, claims, item_places
from tests.bounded import within
from tests.flow.conftest import OpenRoom
from tests.flow.outage import Outage
from tests.flow.room import Room
from tests.store.bench import PATIENCE, Worker, blocked, given, submit


async def _break(room: Room, *workers: Worker) -> Claimed:
    """Each client takes the front bucket and dies on it."""
    for worker in workers:
        (mine,) = await room.ask(worker, 1)
        await room.cut_off(worker)
        await room.forgive()
    return mine


async def _sizes(room: Room) -> Counter[int]:
    found = await room.rows(
        "SELECT items_left(settled) AS n FROM bucket WHERE service_id = $1 AND state = 'ready'",
        room.service,
    )
    return Counter(row["n"] for row in found)


async def test_a_bucket_of_180_is_cut_into_20s_and_those_into_single_items(open_room: OpenRoom) -> None:
    room = await open_room()
    ada, bob = await room.of_standing("ada"), await room.of_standing("bob")
    await room.add([f"k{n}" for n in range(180)])
    broken = {(await _break(room, worker)).bucket_id for worker in (ada, bob, ada)}
    assert len(broken) == 1
    await room.tick()
    assert await _sizes(room) == {180: 1}, "nobody can recollect it any more only after the window"
    assert await room.claim(ada) == []
    await room.later(121)
    await room.tick()
    assert await _sizes(room) == {20: 9}
    small = await room.rows("SELECT attempts FROM bucket WHERE service_id = $1 AND state = 'ready'", room.service)
    assert {row["attempts"] for row in small} == {0}
    bucket = await room.value(
        "UPDATE bucket SET rank_at = rank_at - interval '1 s' "
        "WHERE bucket_id = (SELECT bucket_id FROM bucket WHERE state = 'ready' LIMIT 1) RETURNING bucket_id"
    )
    await room.fail(bucket, 2)
    mine = await _break(room, ada)
    assert mine.bucket_id == bucket
    await room.later(121)
    await room.tick()
    assert await _sizes(room) == {20: 8, 1: 20}
    ids = await room.ids()
    assert [await room.places(item) for item in ids.values()] == [["ready"]] * 180

    alone = await room.value(
        "SELECT items[1] FROM bucket_items JOIN bucket USING (bucket_id) WHERE state = 'ready' AND length(settled) = 1"
    )
    async with room.database.connection() as db:
        lost = await claim_history.without_result(db, ItemId(alone), 2**62, 100)
    assert {claim.given for claim in lost} >= {20, 180}, "also in the buckets that were cut up"
    assert {claim.bucket_id for claim in lost} == broken | {bucket}


async def test_settled_items_are_left_out_and_parts_keep_rank_and_content(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=30)
    ada = await room.of_standing("ada")
    await room.add([f"k{n}" for n in range(30)])
    (mine,) = await room.ask(ada, 1)
    await room.submit(submit(mine, mine.items[:5], final=False))
    await room.remove([key for key, item in (await room.ids()).items() if item == mine.items[7]])
    await room.fail(mine.bucket_id, 2)
    await room.cut_off(ada)
    await room.forgive()
    await room.later(121)
    before = await room.of(mine.bucket_id)
    await room.tick()
    assert await _sizes(room) == {20: 1, 4: 1}
    rows = await room.rows("SELECT rank_at, since, priority FROM bucket WHERE state = 'ready'")
    assert {(row["rank_at"], row["since"], row["priority"]) for row in rows} == {
        (before["rank_at"], before["since"], before["priority"])
    }
    got = await room.ask(await room.worker("bob"), 5)
    ids = await room.ids()
    assert sorted(item for one in got for item in one.items) == sorted(mine.items[5:7] + mine.items[8:])
    for one in got:
        for item in one.items:
            key = next(key for key, known in ids.items() if known == item)
            assert f'"key":"{key}"' in one.frame.replace(" ", "")


async def _single(room: Room) -> Worker:
    """One item, in a bucket of its own, that has broken one client three times."""
    ada = await room.of_standing("ada")
    await room.add(["poison"])
    await _break(room, ada, ada, ada)
    await room.later(121)
    await room.tick()
    return ada


async def test_an_item_that_broke_only_one_client_is_offered_again(open_room: OpenRoom) -> None:
    room = await open_room()
    ada = await _single(room)
    item = (await room.ids())["poison"]
    assert await room.places(item) == ["ready"]
    for _ in range(2):
        await _break(room, ada)
        await room.later(121)
        await room.tick()
    assert await room.places(item) == ["ready"]


async def test_an_item_that_broke_two_clients_goes_to_quarantine_until_it_is_retried(open_room: OpenRoom) -> None:
    room = await open_room()
    await _single(room)
    item = (await room.ids())["poison"]
    bob = await room.of_standing("bob")
    await _break(room, bob)
    await room.later(121)
    await room.tick()
    assert await room.places(item) == ["quarantined"]
    assert await room.value("SELECT attempts FROM quarantine") == 4
    async with room.database.connection() as db:
        lost = await claim_history.without_result(db, ItemId(item), 2**62, 100)
        (placed,) = await item_places.of_ids(db, [ItemId(item)])
    assert [(claim.client_id, claim.ended) for claim in lost] == [("bob", "cut_off")] + [("ada", "cut_off")] * 3
    assert placed.places[0].ended == ("cut_off",) * 4
    assert await room.ask(bob, 1) == []
    await room.retry(["poison"])
    assert await room.places(item) == ["waiting"]
    (mine,) = await room.ask(bob, 1)
    assert (mine.attempts, mine.items) == (0, (item,))
    assert (await room.submit(submit(mine))).closed
    assert await room.places(item) == []


async def test_throw_away_identities_quarantine_nothing(open_room: OpenRoom) -> None:
    room = await open_room()
    await room.add(["target"])
    await _break(room, *[await room.worker(f"throwaway{n}") for n in range(9)])
    await room.later(121)
    await room.tick()
    assert await room.places((await room.ids())["target"]) == ["ready"]


async def test_who_lost_its_standing_meanwhile_quarantines_nothing(open_room: OpenRoom) -> None:
    room = await open_room()
    ada = await _single(room)
    await _break(room, await room.of_standing("liar"))
    await room.execute("UPDATE membership SET taken_back = settled WHERE client_id = 'liar'")
    await room.later(121)
    await room.tick()
    assert await room.places((await room.ids())["poison"]) == ["ready"]
    assert (await room.ask(ada, 1)) != []


async def test_what_did_not_fail_by_the_clients_own_doing_breaks_nothing(open_room: OpenRoom) -> None:
    room = await open_room()
    ada = await room.worker("ada")
    await room.add(["a", "b"])
    for way in (claims.RELEASED, claims.CRASHED, claims.DRAINED, claims.REVOKED, claims.TAKEN, claims.UNDELIVERED):
        (mine,) = await room.ask(ada, 1)
        await room.release(mine, way)
        await room.forgive()
        await room.later(121)
        await room.tick()
    assert await _sizes(room) == {2: 1}
    assert await room.value("SELECT attempts FROM bucket") == 0


async def test_dying_and_final_submits_with_items_left_break_a_bucket_too(open_room: OpenRoom) -> None:
    room = await open_room(dead_after=600, release_after=300)
    ada, bob = await room.of_standing("ada"), await room.of_standing("bob")
    await room.add([f"k{n}" for n in range(40)])
    await _break(room, bob)
    (mine,) = await room.ask(ada, 1)
    await room.later(601)
    await room.tick()
    assert (await room.of(mine.bucket_id))["state"] == "dead"
    await room.later(301)
    await room.tick()
    assert await room.ended(mine.claim) == "dead"
    await room.forgive()
    (mine,) = await room.ask(ada, 1)
    assert mine.attempts == 2
    outcome = await room.submit(submit(mine, given(mine)[:1]))
    assert (outcome.closed, outcome.freed) == (True, True)
    await room.later(121)
    await room.tick()
    assert await _sizes(room) == {20: 1, 19: 1}


@pytest.mark.parametrize("step", ["delete", "prioritise"])
async def test_an_item_is_not_missed_while_its_bucket_is_cut_up(open_room: OpenRoom, step: str) -> None:
    """A delete or a prioritise waits for the cut, and must then find it in its new bucket."""
    room = await open_room()
    await room.add([f"k{n}" for n in range(30)])
    await room.build(BuildReason.NOTHING_READY)
    await room.fail(await room.value("UPDATE bucket SET split_at = now() RETURNING bucket_id"), 3)
    item = (await room.ids())["k7"]
    # The cut has locked its bucket and stands still where it puts in the new ones.
    async with room.database.transaction() as db:
        await db.execute("LOCK TABLE bucket_items IN SHARE MODE")
        cutting = asyncio.ensure_future(room.node.parts.work.expiry.splitter.split_due(room.service))
        await blocked(db, 1)
        meanwhile = asyncio.ensure_future(room.remove(["k7"]) if step == "delete" else room.prioritise(["k7"]))
        await blocked(db, 2)
    await asyncio.gather(cutting, meanwhile)
    assert await room.places(item) == ([] if step == "delete" else ["ready"])


async def test_items_are_acknowledged_when_they_are_on_disk_and_can_be_had_before(open_room: OpenRoom) -> None:
    room = await open_room()
    async with Outage(room.database.dsn).commits_unanswered():
        adding = asyncio.ensure_future(room.add(["a", "b"]))
        async with asyncio.timeout(PATIENCE):
            while not await room.value("SELECT count(*) FROM waiting_item"):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
            assert (await room.build(BuildReason.NOTHING_READY)).buckets == 1
        # The same again: known by now, but not safer for that.
        again = asyncio.ensure_future(room.add(["a", "b"]))
        with pytest.raises(TimeoutError):
            await within(asyncio.shield(again), 0.5)
        assert not adding.done()
    await asyncio.gather(adding, again)
    assert [await room.places(item) for item in (await room.ids()).values()] == [["ready"]] * 2


async def test_what_a_session_held_is_free_before_that_is_on_disk(open_room: OpenRoom) -> None:
    room = await open_room()
    ada = await room.worker("ada")
    await room.add(["a"])
    (mine,) = await room.ask(ada, 1)
    async with Outage(room.database.dsn).commits_unanswered(), asyncio.timeout(PATIENCE):
        assert [one.bucket_id for one in await room.cut_off(ada)] == [mine.bucket_id]
