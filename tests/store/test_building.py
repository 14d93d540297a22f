"""The builder's statement: nothing lost, the front first, and nobody can foresee who is with whom."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.store import building as store
from coordinator.store.pool import Database
from tests.bounded import within
from tests.store.bench import Bench

UNLIKELY = 5.0
"""Standard deviations: a fair shuffle goes beyond this once in 1.7 million runs."""


async def make(bench: Bench, limit: int, size: int, *, short: bool = False) -> int:
    async with bench.database.transaction() as db:
        made, _ = await store.make(db, bench.service, limit, size, short=short)
        return made


def stay_behind(groups: Sequence[tuple[datetime, int]], size: int, *, short: bool) -> list[int]:
    """Count the items of each priority that wait on because they fill no bucket of `size`.

    `groups` are the front rank and the number of items of each; none stay behind when `short` buckets are wanted.
    """
    # What would stay behind but ranks before a bucket that is made must not wait behind it.
    back = max((rank for rank, count in groups if count >= size), default=None)

    behind = []
    for rank, count in groups:
        overtaken = back is not None and rank < back
        behind.append(0 if short or overtaken else count % size)
    return behind


queues = st.lists(
    st.tuples(st.sampled_from([0, 50, 100, 200]), st.one_of(st.sampled_from([-5, 0]), st.integers(-100_000, 100_000))),
    max_size=60,
)
"""Of each waiting item the priority and the rank, in seconds."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queue=queues, size=st.integers(1, 9), short=st.booleans())
async def test_making_loses_nothing_doubles_nothing_and_mixes_no_priorities(
    bench: Bench, queue: list[tuple[int, int]], size: int, short: bool
) -> None:
    await bench.execute("TRUNCATE waiting, bucket, bucket_items, open_bucket")
    items = await bench.waiting(len(queue)) if queue else []
    for item, (priority, rank) in zip(items, queue, strict=True):
        await bench.rerank(item, priority, rank, rank)
    waiting = {row["item_id"]: row for row in await bench.rows("SELECT * FROM waiting_item")}
    made = await make(bench, max(1, len(queue)), size, short=short)
    buckets = await bench.rows(
        "SELECT * FROM bucket JOIN bucket_items USING (bucket_id) JOIN open_bucket USING (bucket_id)"
    )
    rest = await bench.rows("SELECT * FROM waiting_item")
    assert made == len(buckets)
    put = [item for one in buckets for item in one["items"]]
    assert Counter(put + [one["item_id"] for one in rest]) == Counter(list(waiting))
    assert all(one == waiting[one["item_id"]] for one in rest), "what stays keeps its rank"
    for one in buckets:
        assert {waiting[item]["priority"] for item in one["items"]} == {one["priority"]}
        assert one["since"] == min(waiting[item]["since"] for item in one["items"])
        assert [part["item"] for part in msgspec.json.decode(one["frame"])] == one["items"]
        run = [item for other in buckets if other["priority"] == one["priority"] for item in other["items"]]
        assert one["rank_at"] == min(waiting[item]["rank_at"] for item in run)
    latest = min((one["rank_at"] for one in waiting.values()), default=None)
    beyond = [
        one for one in waiting.values() if latest and one["since"] > latest + timedelta(seconds=store.DEFAULT_SPAN)
    ]
    near = [one for one in waiting.values() if one not in beyond]
    assert all(one in rest for one in beyond), "it would overtake what ranks first"
    rest = [one for one in rest if one not in beyond]
    short = short or bool(beyond)
    groups = {row["priority"]: [one for one in near if one["priority"] == row["priority"]] for row in near}
    behind = stay_behind(
        [(min(one["rank_at"] for one in group), len(group)) for group in groups.values()], size, short=short
    )
    assert Counter(one["priority"] for one in rest) == Counter(dict(zip(groups, behind, strict=True)))
    for priority, count in Counter(row["priority"] for row in near).items():
        of_it = [one for one in buckets if one["priority"] == priority]
        sizes = sorted((len(one["items"]) for one in of_it), reverse=True)
        left = [one for one in rest if one["priority"] == priority]
        front = min(row["rank_at"] for row in near if row["priority"] == priority)
        whole, odd = divmod(count, size)
        if sizes == [size] * whole:
            assert len(left) == odd
            assert not (odd and short)
            assert not left or all(one["rank_at"] <= front for one in buckets), "what stays behind is not overtaken"
            cut_off = [waiting[item]["rank_at"] for one in of_it for item in one["items"]]
            assert not (cut_off and left) or max(cut_off) <= min(one["rank_at"] for one in left), "the youngest stay"
        else:
            assert (sizes, left) == ([size] * whole + [odd], [])
            assert short or any(one["rank_at"] > front for one in buckets), "short only if wanted, or else overtaken"


async def test_nothing_rides_along_with_what_is_older_than_its_head_start(bench: Bench) -> None:
    old, urgent, *late = await bench.waiting(9)
    for item, priority, rank, since in ((old, 100, -90_000, -90_000), (urgent, 50, -89_999, -46_799)):
        await bench.rerank(item, priority, rank, since)
    assert await make(bench, 9, 4) == 2
    made = await bench.rows("SELECT priority, items FROM bucket JOIN bucket_items USING (bucket_id) ORDER BY rank_at")
    assert [(one["priority"], one["items"]) for one in made] == [(100, [old]), (50, [urgent])]
    assert await make(bench, 9, 4) == 1
    assert len(await bench.rows("SELECT * FROM waiting_item")) == len(late) - 4


@pytest.mark.parametrize(
    "attributes",
    ["{}", '{"followers": 3, "name": "Z\\"\\u00e9"}', '{"item": 5, "key": "x", "other": [1, {}]}', '{"key": null}'],
)
async def test_clients_see_items_with_their_attributes_and_no_attribute_hides_what_they_are(
    bench: Bench, attributes: str
) -> None:
    (item,) = await bench.waiting(1)
    await bench.execute("UPDATE item SET attributes = $2, key = $3 WHERE item_id = $1", item, attributes, 'k"\\\n1')
    assert await make(bench, 10, 5, short=True) == 1
    frame = await bench.value("SELECT frame FROM open_bucket")
    assert json.loads(frame) == [{**json.loads(attributes), "item": item, "key": 'k"\\\n1'}]
    urgent = await bench.prioritize([item])
    assert await bench.value("SELECT frame FROM open_bucket WHERE bucket_id = $1", urgent) == frame
    assert frame.count('"item":') == 1


async def _run(bench: Bench, items: Sequence[int], size: int) -> list[list[int]]:
    """The places in the queue of the items of each bucket, after one run over all of them."""
    await bench.execute("TRUNCATE waiting, bucket, bucket_items, open_bucket")
    await bench.execute(
        """SELECT put_waiting($1, ARRAY[item_id], now() + n * interval '1 s', now(), 100)
             FROM unnest($2::bigint[]) WITH ORDINALITY AS i (item_id, n)""",
        bench.service,
        items,
    )
    assert await make(bench, len(items), size) == len(items) // size
    place = {item: n for n, item in enumerate(items)}
    rows = await bench.rows("SELECT items FROM bucket_items")
    return [[place[item] for item in row["items"]] for row in rows]


@pytest.mark.long
async def test_who_is_together_is_chance(bench: Bench) -> None:
    """Over several runs: of neighbours in the queue, of the part of the queue, and of the order within a bucket."""
    items, size, runs = await bench.waiting(3000), 30, 6
    n, found = len(items), [await _run(bench, items, size) for _ in range(runs)]

    together = sum(a in part and a + 1 in part for run in found for part in map(set, run) for a in part)
    pairs, p = runs * (n - 1), (size - 1) / (n - 1)
    # The pairs of a run depend on each other a little; twice the variance of independent ones is more than enough.
    assert abs(together - pairs * p) < UNLIKELY * math.sqrt(2 * pairs * p * (1 - p))

    # The mean place of a bucket's items varies as that of a random draw without replacement: not less, not more.
    mean, variance = (n - 1) / 2, (n**2 - 1) / 12 / size * (n - size) / (n - 1)
    scores = [(sum(part) / size - mean) ** 2 / variance for run in found for part in run]
    assert abs(sum(scores) - len(scores)) < UNLIKELY * math.sqrt(2 * len(scores))

    order = [(at - (size - 1) / 2, place - mean) for run in found for part in run for at, place in enumerate(part)]
    spread = (size**2 - 1) / 12 * (n**2 - 1) / 12
    assert abs(sum(a * b for a, b in order)) / math.sqrt(len(order) * spread) < UNLIKELY


async def test_no_two_runs_are_alike(bench: Bench) -> None:
    items = await bench.waiting(100)
    first, other = [{frozenset(part) for part in await _run(bench, items, 10)} for _ in range(2)]
    assert first != other


@pytest.mark.measured
async def test_a_large_run_with_items_left_over_is_quick_whatever_is_known_of_the_queue(bench: Bench) -> None:
    """A plan that compares each item with each takes a quarter of a minute."""
    for statistics in (False, True):
        left = await bench.waiting(17_999)
        if statistics:
            await bench.execute("ANALYZE waiting")
        async with bench.database.transaction() as db, asyncio.timeout(4):
            made, (_, block) = await store.make(db, bench.service, len(left), 180, short=False)
        assert made == 99
        waiting = await bench.rows("SELECT item_id FROM waiting_item ORDER BY rank_at, item_id")
        assert [row["item_id"] for row in waiting] == left[-179:]
        assert block == left[-179] // 1024
        await bench.execute("TRUNCATE waiting, bucket, bucket_items, open_bucket")


# The few items that have just come


async def few(bench: Bench, size: int = 10) -> int:
    async with bench.database.connection() as db:
        return await store.make_few(db, bench.service, size)


async def test_few_items_are_put_into_short_buckets_of_their_priority(bench: Bench) -> None:
    urgent, usual = await bench.waiting(3, 7), await bench.waiting(2)
    assert await few(bench) == 2
    rows = await bench.rows("SELECT priority, items FROM bucket JOIN bucket_items USING (bucket_id) ORDER BY priority")
    assert [(row["priority"], sorted(row["items"])) for row in rows] == [(7, urgent), (100, usual)]
    assert await bench.value("SELECT count(*) FROM waiting_item") == 0
    assert await few(bench) == 0


async def test_a_whole_bucket_of_items_is_left_to_the_run_that_shuffles_more(bench: Bench) -> None:
    await bench.waiting(9)
    await bench.waiting(1, 7)
    assert await few(bench) == 0
    assert await bench.value("SELECT count(*) FROM waiting_item") == 10


async def test_no_short_bucket_is_made_while_one_is_ready(bench: Bench) -> None:
    bucket = await bench.bucket(1)
    await bench.waiting(2)
    assert await few(bench) == 0
    await bench.execute("UPDATE bucket SET split_at = now() + interval '1 h' WHERE bucket_id = $1", bucket)
    assert await few(bench) == 1, "one that is to be cut up cannot be had"


async def test_few_items_are_left_to_the_maker_that_is_at_work(bench: Bench, database: Database) -> None:
    await bench.waiting(2)
    async with database.transaction() as other:
        await store.lock(other, [bench.service])
        assert await within(few(bench), 5) == 0
    assert await few(bench) == 1


async def test_however_many_make_few_at_once_no_item_is_in_two_buckets(bench: Bench, dsn: str) -> None:
    many = Database(dsn, size=6)
    await many.open()
    made: Counter[int] = Counter()
    items = await bench.items(300)

    async def work(place: int) -> None:
        for item in items[place::6]:
            async with many.connection() as db:
                await db.execute("SELECT put_waiting($1, ARRAY[$2::bigint], now(), now(), 100)", bench.service, item)
                made[place] += await store.make_few(db, bench.service, 1000)
                await db.execute(
                    "UPDATE bucket SET state = 'done', settled = ~(settled & ~settled) WHERE state = 'ready'"
                )

    await asyncio.gather(*(work(place) for place in range(6)))
    await many.close()
    put = await bench.rows("SELECT unnest(items) AS item FROM bucket_items")
    rest = await bench.rows("SELECT item_id AS item FROM waiting_item")
    assert sorted(row["item"] for row in [*put, *rest]) == items
    assert sum(n > 0 for n in made.values()) > 1, made
