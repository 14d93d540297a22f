"""Changes of results are read in an order in which nothing that is committed later stands before what was read."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from coordinator.model import ServiceId
from coordinator.store import changes, invalidations, results
from coordinator.store.invalidations import ResultFilter
from coordinator.store.pool import Database
from tests.store.bench import Bench, submit

START = (0, 0)
EVERYTHING = ResultFilter(None, None, None, None)


async def read(bench: Bench, after: tuple[int, int] = START, limit: int = 1000) -> tuple[list[Any], tuple[int, int]]:
    """The changes behind a cursor as (what, item), and the next cursor."""
    async with bench.database.transaction() as db:
        await changes.order(db)
    async with bench.database.connection() as db:
        page = await changes.page(db, bench.service, "probe", after, limit)
    rows = [json.loads(row) for row in page.rows]
    assert all(row["service"] == "probe" for row in rows)
    return [(row["change"], row["item"]) for row in rows], page.last


async def test_a_result_of_a_transaction_that_was_held_open_stands_behind_the_cursor(bench: Bench) -> None:
    """It drew its number, and its time, before all others."""
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    slow, quick = await bench.held(ada), await bench.held(bob)
    async with bench.database.transaction() as held_open:
        await results.settle(held_open, [submit(slow)])
        await bench.settle(submit(quick))
        found, cursor = await read(bench)
        assert found == [("stored", item) for item in sorted(quick.items)]
        assert await read(bench, cursor) == ([], cursor)

    assert (await read(bench, cursor))[0] == [("stored", item) for item in sorted(slow.items)]
    assert len((await read(bench))[0]) == len(quick.items) + len(slow.items)


async def test_a_reader_misses_nothing_and_gets_nothing_twice_whatever_the_order_of_commits(database: Database) -> None:
    """Writers that commit in another order than they began, two readers, and one that begins anew."""
    writers, each = 6, 15
    chance = random.Random(7)
    turns = [chance.random() / 100 for _ in range(writers * each)]
    done = asyncio.Event()

    async def write(writer: int) -> None:
        for n in range(each):
            async with database.transaction() as db:
                await db.execute(
                    "INSERT INTO new_change (service_id, kind, items) VALUES (1, 'deleted', ARRAY[$1::bigint])",
                    writer * each + n + 1,
                )
                await asyncio.sleep(turns[writer * each + n])

    async def follow(limit: int) -> list[int]:
        cursor, found = START, []
        while True:
            last_round = done.is_set()
            async with database.transaction() as db:
                await changes.order(db)
            async with database.connection() as db:
                page = await changes.page(db, ServiceId(1), "probe", cursor, limit)
            cursor = page.last
            found += [json.loads(row)["item"] for row in page.rows]
            if last_round and not page.rows:
                return found

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(follow(limit)) for limit in (1, 1000)]
        async with asyncio.TaskGroup() as all_writers:
            for writer in range(writers):
                all_writers.create_task(write(writer))
        done.set()

    late = await follow(7)
    assert sorted(late) == list(range(1, writers * each + 1))
    assert [reader.result() for reader in readers] == [late, late]


async def test_each_kind_of_change_in_order(bench: Bench) -> None:
    ada = await bench.worker("ada")
    bucket = await bench.held(ada, 4)
    first, *rest = sorted(bucket.items)
    await bench.settle(submit(bucket, [first], final=False))
    found, cursor = await read(bench)
    assert found == [("stored", first)]

    await bench.settle_one(submit(bucket, rest[:1], final=False))  # the other way to store
    await bench.settle(submit(bucket, rest[1:]))
    found, cursor = await read(bench, cursor)
    assert found == [("stored", item) for item in rest]

    async with bench.database.transaction() as db:
        number, _ = await invalidations.mark(db, EVERYTHING, requeue=False)
    found, cursor = await read(bench, cursor)
    assert found == [("invalidated", item) for item in (first, *rest)]

    async with bench.database.transaction() as db:
        await invalidations.unmark(db, number)
    await bench.delete([first])
    found, cursor = await read(bench, cursor)
    assert found == [*(("reinstated", item) for item in rest), ("deleted", first)]

    again, _ = await read(bench)  # from the beginning: what is deleted is told as that alone
    assert again == [*((kind, item) for kind in ("stored", "invalidated", "reinstated") for item in rest), found[-1]]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages_of_any_size_are_the_same_rows(bench: Bench, limit: int) -> None:
    ada = await bench.worker("ada")
    for _ in range(3):
        await bench.settle(submit(await bench.held(ada, 3)))
    whole, _ = await read(bench)
    assert len(whole) == 9
    found, cursor = [], START
    while rows := (await read(bench, cursor, limit))[0]:
        assert len(rows) <= limit
        found += rows
        cursor = (await read(bench, cursor, limit))[1]
    assert found == whole


async def test_changes_of_a_claim_become_one_a_week_after_its_end_and_a_reader_in_between_misses_nothing(
    bench: Bench,
) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    bucket, other = await bench.held(ada, 4), await bench.held(bob, 4)
    first, *rest = sorted(bucket.items)
    await bench.settle(submit(bucket, [first], final=False))
    _, early = await read(bench)
    await bench.settle(submit(other))
    await bench.settle_one(submit(bucket, rest[:1], final=False))
    await bench.settle(submit(bucket, rest[1:]))
    before, end = await read(bench)
    assert before == [("stored", item) for item in (first, *sorted(other.items), *rest)]
    assert await bench.value("SELECT count(*) FROM change") == 4

    async with bench.database.transaction() as db:
        assert await changes.merge(db, 0) == 0
    assert await bench.value("SELECT count(*) FROM change") == 4
    await bench.execute(
        "UPDATE claim SET begun_at = begun_at - interval '8 days', ended_at = ended_at - interval '8 days'"
    )
    async with bench.database.transaction() as db:
        assert await changes.merge(db, 0) == bucket.claim
        assert await changes.merge(db, bucket.claim) == 0
    assert await bench.value("SELECT count(*) FROM change") == 2

    whole = [("stored", item) for item in (*sorted(other.items), first, *rest)]
    assert (await read(bench))[0] == whole
    assert (await read(bench, early))[0] == whole
    assert (await read(bench, end))[0] == []
    found, cursor = [], early
    while rows := (await read(bench, cursor, 1))[0]:
        found += rows
        cursor = (await read(bench, cursor, 1))[1]
    assert found == whole


async def test_what_is_submitted_at_once_or_still_under_way_is_left_as_it_is(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    await bench.settle(submit(await bench.held(ada, 4)))
    held = await bench.held(bob, 4)
    await bench.settle(submit(held, held.items[:1], final=False))
    await read(bench)
    await bench.execute("UPDATE claim SET begun_at = begun_at - interval '8 days'")
    partial = "SELECT count(*) FILTER (WHERE partial) FROM change"
    assert await bench.value(partial) == 1
    async with bench.database.transaction() as db:
        assert await changes.merge(db, 0) == held.claim  # which has not ended, though it began long ago
    assert await bench.value(partial) == 1
