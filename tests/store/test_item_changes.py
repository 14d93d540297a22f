"""Items out of turn: prioritised, deleted and retried, wherever they are."""

from __future__ import annotations

import pytest

from coordinator.model import Claimed, ItemId
from coordinator.store import item_changes
from coordinator.store.pool import Database
from tests.store.bench import Bench, submit


async def test_a_waiting_item_is_taken_and_keeps_since_when_it_waits(bench: Bench) -> None:
    item, other = await bench.waiting(2)
    await bench.execute("UPDATE waiting SET since = since - interval '1 h', rank_at = rank_at - interval '1 h'")
    urgent = await bench.prioritize([item])
    assert urgent is not None
    assert (await bench.places(item), await bench.places(other)) == (["ready"], ["waiting"])
    row = await bench.row(
        """SELECT extract(epoch FROM now() - since)::int AS waits, extract(epoch FROM since - rank_at)::int AS start,
                  priority FROM bucket WHERE bucket_id = $1""",
        urgent,
    )
    assert row["waits"] == pytest.approx(3600, abs=5)
    assert (row["start"], row["priority"]) == (86_400, 0)


async def test_it_is_taken_out_of_a_ready_bucket_of_lower_priority(bench: Bench) -> None:
    bucket = await bench.bucket(3, age=100)
    item = (await bench.rows("SELECT items FROM bucket_items"))[0]["items"][1]
    urgent = await bench.prioritize([item])
    assert await bench.places(item) == ["ready"]
    row = await bench.of(bucket)
    assert (row["state"], row["bits"]) == ("ready", "010")
    first, second = [(await bench.claim(await bench.worker("ada")))[0] for _ in range(2)]
    assert (first.bucket_id, second.bucket_id) == (urgent, bucket)
    assert await bench.value("SELECT count(*) FROM twin") == 0


async def test_a_ready_bucket_that_is_empty_by_that_is_done(bench: Bench) -> None:
    bucket = await bench.bucket(2)
    items = (await bench.rows("SELECT items FROM bucket_items"))[0]["items"]
    urgent = await bench.prioritize(items)
    assert (await bench.of(bucket))["state"] == "done"
    assert [one.bucket_id for one in await bench.claim(*[await bench.worker("ada")] * 3)] == [urgent]


@pytest.mark.parametrize("priority", [0, 50])
async def test_in_a_ready_bucket_that_is_as_urgent_it_stays(bench: Bench, priority: int) -> None:
    items = await bench.items(2)
    bucket = await bench.bucket(items, priority=priority)
    assert await bench.prioritize(items[:1], priority=50) is None
    assert (await bench.of(bucket))["bits"] == "00"


async def test_a_claimed_or_dead_item_gets_a_second_copy_and_only_one(bench: Bench) -> None:
    ada = await bench.worker("ada")
    for state in ("claimed", "dead"):
        mine = await bench.held(ada, 2)
        await bench.execute("UPDATE bucket SET state = $2 WHERE bucket_id = $1", mine.bucket_id, state)
        urgent = await bench.prioritize([mine.items[0]])
        assert await bench.places(mine.items[0]) == sorted([state, "ready"])
        twin = await bench.row("SELECT * FROM twin WHERE item_id = $1", mine.items[0])
        assert (twin["first_id"], twin["second_id"], twin["settled_by"]) == (mine.bucket_id, urgent, None)
        assert await bench.value("SELECT bool_and(twins) FROM bucket WHERE bucket_id = ANY ($1)",
                                 [mine.bucket_id, urgent])  # fmt: skip
        assert await bench.prioritize([mine.items[0]]) is None
        await bench.execute("UPDATE bucket SET rank_at = rank_at + interval '2 days'")


async def test_a_settled_item_is_checked_again(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada, 1)
    await bench.settle(submit(mine))
    assert await bench.prioritize(list(mine.items)) is not None
    assert await bench.places(mine.items[0]) == ["ready"]
    (again,) = await bench.claim(ada)
    assert (await bench.settle_one(submit(again))).stored == 1
    assert len(await bench.stored()) == 2


async def test_an_item_new_to_the_service_joins_it(bench: Bench, database: Database) -> None:
    other = await Bench.make(database, "other")
    (item,) = await other.waiting(1)
    assert await bench.prioritize([item]) is not None
    assert (await bench.places(item), await other.places(item)) == (["ready"], ["waiting"])
    assert await bench.value("SELECT count(*) FROM enrolled_item WHERE item_id = $1", item) == 2


async def test_a_quarantined_item_stays_where_it_is(bench: Bench) -> None:
    (item,) = await bench.items(1)
    await bench.execute("INSERT INTO quarantine VALUES ($1, $2, 3)", bench.service, item)
    assert await bench.prioritize([item]) is None
    assert await bench.places(item) == ["quarantined"]


# Deleting


async def _nothing_left(bench: Bench, item: ItemId) -> None:
    for table in ("item", "enrolled_item", "waiting_item", "quarantine", "result", "twin"):
        assert await bench.value(f"SELECT count(*) FROM {table} WHERE item_id = $1", item) == 0, table
    assert await bench.places(item) == []


async def test_a_deleted_item_leaves_every_place(bench: Bench, database: Database) -> None:
    other = await Bench.make(database, "other")
    ada = await bench.worker("ada")
    waiting, quarantined, ready, claimed = *(await bench.waiting(1)), *(await bench.items(3))
    await bench.execute("INSERT INTO quarantine VALUES ($1, $2, 3)", bench.service, quarantined)
    await bench.bucket([claimed, *await bench.items(1)])
    (mine,) = await bench.claim(ada)
    await bench.bucket([*await bench.items(1), ready])
    settled = await bench.items(1)
    await bench.prioritize(settled)
    (over,) = await bench.claim(ada)
    await bench.settle_one(submit(over))
    elsewhere = await other.bucket([ready])
    every = [waiting, quarantined, ready, claimed, settled[0]]
    assert await bench.delete(every) == []
    for item in every:
        await _nothing_left(bench, item)
    assert (await bench.of(mine.bucket_id))["state"] == "claimed"
    assert (await other.of(elsewhere))["state"] == "done"
    (left,) = await bench.claim(ada)
    assert left.settled == "01"


async def test_a_claimed_bucket_whose_last_item_is_deleted_is_over(bench: Bench) -> None:
    mine: Claimed = await bench.held(await bench.worker("ada"), 2)
    await bench.settle(submit(mine, mine.items[:1], final=False))
    (over,) = await bench.delete(mine.items[1:])
    assert (over.bucket_id, over.claim, over.client_id, over.session_id) == (
        mine.bucket_id, mine.claim, "ada", mine.session_id,
    )  # fmt: skip
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["client_id"], await bench.ended(mine.claim)) == ("done", None, "settled")
    assert len(await bench.stored()) == 1


async def test_the_key_of_a_deleted_item_may_come_again_as_another_item(bench: Bench) -> None:
    (item,) = await bench.waiting(1)
    await bench.delete([item])
    bench._keys = 0
    (again,) = await bench.waiting(1)
    assert again != item
    assert await bench.places(again) == ["waiting"]


# Quarantine


async def test_retried_items_wait_again_and_others_stay(bench: Bench, database: Database) -> None:
    first, second = await bench.items(2)
    async with database.connection() as db:
        for item in (first, second):
            await item_changes.quarantine(db, bench.service, item, 3)
        rows = await item_changes.quarantined(db, bench.service, (0, 0), 1)
        more = await item_changes.quarantined(db, None, (bench.service, rows[0]["item"]), 10)
        assert [row["item"] for row in rows + more] == [first, second]
        assert {row["attempts"] for row in rows + more} == {3}
        assert await item_changes.retry(db, bench.service, [rows[0]["key"], "unknown"]) == {rows[0]["key"]}
        assert await item_changes.retry(db, bench.service, [rows[0]["key"]]) == set()
    assert (await bench.places(first), await bench.places(second)) == (["waiting"], ["quarantined"])
