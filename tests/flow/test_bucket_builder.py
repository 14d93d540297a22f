"""From the queue to the pool: nothing lost, the front first, and nobody can foresee who is with whom."""

from __future__ import annotations

import math

import pytest

from coordinator.flow import bucket_builder
from coordinator.flow.bucket_builder import BuildOutcome, BuildReason, BuildStatus, head_start, shuffled_parts
from coordinator.store import building as store
from tests.flow.conftest import OpenRoom
from tests.flow.room import Room

UNLIKELY = 5.0
"""Standard deviations: a fair shuffle goes beyond this once in 1.7 million runs."""


@pytest.mark.parametrize(("priority", "seconds"), [(100, 0), (0, 1000), (50, 500), (200, -1000), (150, -500)])
def test_what_a_priority_is_worth(priority: int, seconds: float) -> None:
    assert head_start(priority, 1000.0) == seconds


# Nobody can foresee.  Each figure is a sum over many shuffles, held against what a fair one gives.


def test_neighbours_in_the_queue_are_in_one_bucket_no_more_often_than_by_chance() -> None:
    """Each of n-1 neighbouring pairs shares a bucket with probability (size - 1) / (n - 1)."""
    items, size, runs = 900, 30, 60
    together = 0
    for _ in range(runs):
        place = {item: n for n, part in enumerate(shuffled_parts(range(items), size)) for item in part}
        together += sum(place[item] == place[item + 1] for item in range(items - 1))
    p = (size - 1) / (items - 1)
    pairs = runs * (items - 1)
    # The pairs of a run depend on each other a little; twice the variance of independent ones is more than enough.
    assert abs(together - pairs * p) < UNLIKELY * math.sqrt(2 * pairs * p * (1 - p))


def test_a_bucket_comes_from_no_part_of_the_queue() -> None:
    """The rank sum of a bucket's items varies as that of a random draw without replacement: not less, not more."""
    items, size, runs = 600, 20, 100
    mean = (items - 1) / 2
    variance = (items**2 - 1) / 12 / size * (items - size) / (items - 1)
    scores = [
        (sum(part) / size - mean) ** 2 / variance for _ in range(runs) for part in shuffled_parts(range(items), size)
    ]
    # Each is about a squared normal deviate (mean 1, variance 2).
    assert abs(sum(scores) - len(scores)) < UNLIKELY * math.sqrt(2 * len(scores))


def test_the_place_within_the_run_is_independent_of_the_place_in_the_queue() -> None:
    items, runs = 500, 100
    total = 0.0
    for _ in range(runs):
        order = [item for part in shuffled_parts(range(items), 20) for item in part]
        centre, spread = (items - 1) / 2, (items**2 - 1) / 12
        correlation = sum((n - centre) * (item - centre) for n, item in enumerate(order)) / items / spread
        total += correlation * math.sqrt(items - 1)
    assert abs(total / math.sqrt(runs)) < UNLIKELY


async def test_what_clients_get_is_in_no_order_of_the_queue(open_room: OpenRoom) -> None:
    """Through the builder and the claim: neither which items are together nor which bucket comes next."""
    room = await open_room(bucket_size=10)
    for n in range(10):
        await room.worker(f"w{n}")
    await room.add([f"k{n:04}" for n in range(2000)])
    await room.build()
    got = await room.claim(*[await room.worker("w0")] * 200)
    assert len(got) == 200
    order = [item for one in got for item in one.items]
    assert len(set(order)) == 2000
    n = len(order)
    rank = {item: place for place, item in enumerate(sorted(order))}
    centre, spread = (n - 1) / 2, (n**2 - 1) / 12
    correlation = sum((place - centre) * (rank[item] - centre) for place, item in enumerate(order)) / n / spread
    assert abs(correlation) * math.sqrt(n - 1) < UNLIKELY
    neighbours = sum(abs(rank[a] - rank[b]) == 1 for one in got for a in one.items for b in one.items) / 2
    expected = (n - 1) * 9 / (n - 1)
    assert neighbours < expected + UNLIKELY * math.sqrt(2 * expected) + 5


# The builder


async def _ready(room: Room) -> list[int]:
    rows = await room.rows("SELECT length(settled) AS n FROM bucket WHERE state = 'ready' ORDER BY n DESC")
    return [row["n"] for row in rows]


async def test_the_pool_is_kept_at_twice_what_the_clients_may_ask_for(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=3, max_buckets_per_ask=2)
    for name in ("ada", "bob"):
        await room.worker(name)
    await room.add([f"k{n}" for n in range(100)])
    await room.build()
    assert await _ready(room) == [3] * 8
    assert (await room.build()).buckets == 0
    assert len(await room.claim(*[await room.worker("ada")] * 5)) == 5
    assert (await room.build()).buckets == 5
    assert await room.value("SELECT count(*) FROM waiting_item") == 100 - 13 * 3


async def test_a_run_takes_no_more_than_it_may(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.flow.bucket_builder.MAX_ITEMS_A_RUN", 12)
    room = await open_room(bucket_size=3, max_buckets_per_ask=10)
    await room.worker("ada")
    await room.add([f"k{n}" for n in range(40)])
    assert (await room.build()).buckets == 4
    assert await room.value("SELECT count(*) FROM waiting_item") == 28


async def test_short_buckets_only_when_someone_wants_one(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=4)
    await room.worker("ada")
    await room.add(["a", "b", "c"])
    await room.build()
    assert await _ready(room) == []
    assert await room.value("SELECT count(*) FROM waiting_item") == 3
    await room.build(BuildReason.NOTHING_READY)
    assert await _ready(room) == [3]
    await room.add([f"k{n}" for n in range(6)])
    await room.build(BuildReason.NOTHING_READY)
    assert await _ready(room) == [4, 3], "one is ready, so nobody needs another short one"
    await room.build(BuildReason.ONLY_RETURNED_ONES)
    assert await _ready(room) == [4, 3, 2]


async def test_what_is_left_over_waits_on_with_its_rank(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=4)
    await room.worker("ada")
    await room.add([f"k{n}" for n in range(6)])
    before = {row["item_id"]: row for row in await room.rows("SELECT * FROM waiting_item")}
    await room.build()
    after = await room.rows("SELECT * FROM waiting_item")
    assert len(after) == 2
    assert all(row == before[row["item_id"]] for row in after)


async def test_what_ranks_before_the_back_of_a_full_pool_does_not_wait_behind_it(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=2, max_buckets_per_ask=1)
    ada = await room.worker("ada")
    await room.add([f"k{n}" for n in range(20)])
    await room.build()
    assert await _ready(room) == [2, 2]
    await room.add(["urgent"], priority=0)
    await room.build()
    (first,) = await room.claim(ada)
    assert first.items == ((await room.ids())["urgent"],)


async def test_priorities_do_not_share_a_bucket(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=4)
    ada = await room.worker("ada")
    for priority in (100, 0, 150):
        await room.add([f"p{priority}-{n}" for n in range(3)], priority)
    ids = await room.ids()
    got = []
    while more := await room.ask(ada, 1):
        got += more
    keys = {item: key for key, item in ids.items()}
    assert [{keys[item].split("-")[0] for item in one.items} for one in got] == [{"p0"}, {"p100"}, {"p150"}]


async def test_only_one_makes_buckets_of_a_service_at_a_time(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=2)
    await room.worker("ada")
    await room.add(["a", "b"])
    async with room.database.transaction() as db:
        assert await store.try_lock(db, room.service)
        for reason in BuildReason:
            assert await room.build(reason) == BuildOutcome(BuildStatus.BUSY)
    assert (await room.build(BuildReason.NOTHING_READY)).buckets == 1


async def test_nothing_is_made_of_what_was_deleted(open_room: OpenRoom) -> None:
    room = await open_room(bucket_size=2)
    await room.worker("ada")
    await room.add(["a", "b", "c"])
    await room.remove(["b"])
    await room.build(BuildReason.NOTHING_READY)
    while (await room.build(BuildReason.NOTHING_READY)).buckets:
        pass
    ids = await room.ids()
    assert {key: await room.places(item) for key, item in ids.items()} == {"a": ["ready"], "c": ["ready"]}


async def test_a_queue_is_looked_at_from_where_it_was_left_until_something_is_heard(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_builder, "TRUST_POSITION_FOR", 3600.0)
    room = await open_room(bucket_size=4)
    first = await room.waiting(8)
    assert (await room.build(BuildReason.NOTHING_READY)).buckets == 1
    urgent = await room.waiting(4, priority=0, head_start=3600.0)
    assert (await room.build(BuildReason.ONLY_RETURNED_ONES)).buckets == 1
    made = await room.rows("SELECT items FROM bucket_items JOIN bucket USING (bucket_id) ORDER BY rank_at, items")
    assert sorted(item for row in made for item in row["items"]) == first
    room.builder.forget(room.service)
    assert (await room.build()).buckets == 1
    assert await room.value("SELECT count(*) FROM waiting_item") == 0
    made = await room.rows("SELECT items FROM bucket_items JOIN bucket USING (bucket_id) ORDER BY rank_at, items")
    assert sorted(made[0]["items"]) == urgent
