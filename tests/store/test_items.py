"""The catalogue, what waits, what an item's state is, results page by page, and the counts."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pytest

from coordinator.model import ItemId, ItemState
from coordinator.store import adding, claims, items, statistics
from coordinator.store.building import QUEUE_START
from coordinator.store.items import ResultRow
from coordinator.store.pool import Database
from tests.store.bench import Bench, blocked, submit


async def _add(bench: Bench, *keys: str) -> list[ItemId]:
    """New items that wait nowhere."""
    async with bench.database.connection() as db:
        return list((await adding.add(db, [(key, None, "{}") for key in keys], {}, 100)).values())


async def _known(bench: Bench, *keys: str) -> list[ItemId]:
    async with bench.database.transaction() as db:
        return await adding.known(db, keys)


async def _join(bench: Bench, chosen: list[ItemId], priority: int = 100, start: float = 0.0) -> int:
    async with bench.database.transaction() as db:
        return await adding.join(db, bench.service, chosen, priority, start)


# Adding and joining


async def test_known_keys_are_told_apart_and_keep_their_attributes(bench: Bench) -> None:
    async with bench.database.connection() as db:
        new = await adding.add(db, [("a", None, '{"n": 1}'), ("b", None, "{}")], {}, 100)
        assert new.keys() == {"a", "b"}
        assert len(await adding.add(db, [("c", None, "{}"), ("a", None, '{"n": 2}')], {}, 100)) == 1
        assert await _known(bench, "a", "nobody") == [new["a"]]
        story = await items.show(db, "a")
        assert story is not None
        assert story.attributes == {"n": 1}


async def test_new_items_wait_in_each_service_with_its_own_head_start(bench: Bench) -> None:
    other = await Bench.make(bench.database, "other")
    await bench.waiting(1)
    async with bench.database.connection() as db:
        (item,) = (await adding.add(db, [("a", None, "{}")], {bench.service: 60.0, other.service: 3600.0}, 7)).values()
        assert await adding.add(db, [("a", None, "{}")], {bench.service: 0.0}, 100) == {}  # known: nothing changes
    rows = await bench.rows(
        "SELECT service_id, since - rank_at AS start, priority FROM waiting_item WHERE item_id = $1 ORDER BY 2", item
    )
    assert [(row["service_id"], row["start"].total_seconds(), row["priority"]) for row in rows] == [
        (bench.service, 60.0, 7),
        (other.service, 3600.0, 7),
    ]
    assert await bench.places(item) == ["waiting"]


async def test_an_item_joins_a_service_once_and_is_never_reopened(bench: Bench) -> None:
    new = await _add(bench, "a", "b")
    assert await _join(bench, new) == 2
    assert await _join(bench, new) == 0
    mine = await bench.held(await bench.worker("ada"), 1)
    await bench.settle(submit(mine))
    assert await _join(bench, list(mine.items)) == 0
    assert await bench.places(mine.items[0]) == []


async def test_of_two_that_add_the_same_new_key_at_once_the_second_finds_it_known(
    bench: Bench, database: Database
) -> None:
    """Else the item does not join the services of the second request, and nobody is told."""
    async with database.transaction() as db:
        first = await adding.add(db, [("a", None, "{}")], {}, 100)
        second = asyncio.ensure_future(_add(bench, "a", "b"))
        await blocked(db)
    assert len(await second) == 1
    assert await _known(bench, "a") == [first["a"]]


async def test_an_item_that_is_added_while_it_is_deleted_leaves_nothing_behind(
    bench: Bench, database: Database
) -> None:
    other = await Bench.make(database, "other")
    (item,) = await other.items(1)
    key = await bench.value("SELECT key FROM item WHERE item_id = $1", item)
    async with database.transaction() as db:
        await adding.join(db, bench.service, await adding.known(db, [key]), 100, 0.0)
        deleted = asyncio.ensure_future(other.delete([item]))
        await blocked(db)
    await deleted
    assert await bench.value("SELECT count(*) FROM item WHERE item_id = $1", item) == 0
    for table in ("enrolled_item", "waiting_item"):
        assert await bench.value(f"SELECT count(*) FROM {table} WHERE item_id = $1", item) == 0


async def test_an_item_that_joins_while_it_is_prioritised_does_not_wait_as_well(
    bench: Bench, database: Database
) -> None:
    (item,) = await _add(bench, "a")
    async with database.transaction() as db:
        await adding.join(db, bench.service, [item], 100, 0.0)
        urgent = asyncio.ensure_future(bench.prioritize([item]))
        await blocked(db)
    await urgent
    assert await bench.places(item) == ["ready"]


# Waiting


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_all_pages_of_what_waits_together_are_all_of_it_in_rank_order(bench: Bench, limit: int) -> None:
    expected = []
    for priority, start in ((100, 0.0), (0, 86_400.0), (200, -86_400.0)):
        expected += [(start, item) for item in await bench.waiting(10, priority, start)]
    expected.sort(key=lambda one: (-one[0], one[1]))
    other = await Bench.make(bench.database, "other")
    await other.waiting(3)
    seen, after, last = [], QUEUE_START, None
    while True:
        async with bench.database.connection() as db:
            page = await items.waiting(db, bench.service, after, limit)
        seen += page
        if len(page) < limit:
            break
        last = page[-1]
        after = (last.rank_at, last.item_id)
    assert [one.item_id for one in seen] == [item for _, item in expected]
    assert {(one.priority, one.since - one.rank_at) for one in seen} == {
        (100, timedelta()),
        (0, timedelta(days=1)),
        (200, timedelta(days=-1)),
    }


# State


async def _state(bench: Bench, item: int) -> list[tuple[str, ItemState]]:
    key = await bench.value("SELECT key FROM item WHERE item_id = $1", item)
    async with bench.database.connection() as db:
        story = await items.show(db, key)
    assert story is not None
    return story.states


async def test_an_items_state_in_each_of_its_services(bench: Bench, database: Database) -> None:
    other = await Bench.make(database, "zother")
    ada = await bench.worker("ada")
    (item,) = await bench.waiting(1)
    assert await _state(bench, item) == [("probe", "waiting")]
    await other.execute("SELECT enrol($1, ARRAY[$2::bigint])", other.service, item)
    await other.execute("INSERT INTO quarantine VALUES ($1, $2, 3)", other.service, item)
    assert await _state(bench, item) == [("probe", "waiting"), ("zother", "quarantined")]
    await bench.execute("DELETE FROM waiting")
    rest = await bench.items(2)
    await bench.bucket([rest[0], item, rest[1]])
    assert (await _state(bench, item))[0] == ("probe", "ready")
    (mine,) = await bench.claim(ada)
    assert (await _state(bench, item))[0] == ("probe", "claimed")
    await bench.execute("UPDATE bucket SET state = 'dead'")
    assert (await _state(bench, item))[0] == ("probe", "claimed")
    await bench.settle(submit(mine, [item], final=False))
    assert (await _state(bench, item))[0] == ("probe", "settled")
    assert await _state(bench, rest[0]) == [("probe", "claimed")]
    assert await bench.prioritize([item]) is not None
    assert (await _state(bench, item))[0] == ("probe", "ready")


async def test_the_state_of_an_item_with_a_second_copy_is_where_it_is_counted(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    mine = await bench.held(ada, 1)
    (item,) = mine.items

    async def seen() -> str:
        async with bench.database.connection() as db:
            counts = (await statistics.state(db))[bench.service]
        ((_, state),) = await _state(bench, item)
        assert (getattr(counts, state), counts.total) == (1, 1)
        return state

    assert await seen() == "claimed"
    await bench.prioritize([item])
    assert await seen() == "ready"
    (urgent,) = await bench.claim(bob)
    assert await seen() == "claimed"
    await bench.settle_one(submit(urgent))
    assert await seen() == "settled"


async def test_an_item_leads_to_all_its_results_and_their_origin(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    first = await bench.held(ada, 1)
    await bench.settle(submit(first))
    await bench.prioritize(list(first.items))
    (second,) = await bench.claim(bob)
    await bench.settle_one(submit(second))
    await bench.execute("UPDATE claim SET invalidated_by = 1 WHERE claim_id = $1", second.claim)
    async with bench.database.connection() as db:
        story = await items.show(db, await db.fetchval("SELECT key FROM item"))
        assert await items.show(db, "nobody") is None
    assert story is not None
    assert [(one.claim, one.client_id, one.session_id, one.bucket_id, one.valid) for one in story.results] == [
        (second.claim, "bob", bob.session_id, second.bucket_id, False),
        (first.claim, "ada", ada.session_id, first.bucket_id, True),
    ]


# Results, page by page


async def _all_results(bench: Bench, limit: int, **filters: Any) -> list[ResultRow]:
    """All pages, as whoever reads them does."""
    seen: list[ResultRow] = []
    after = (0, 0)
    while True:
        async with bench.database.connection() as db:
            page = await items.results(db, bench.service, after, limit, **filters)
        seen += page.rows
        if page.last is None:
            return seen
        after = page.last


async def _history(bench: Bench) -> None:
    """Settled buckets of one to three items by two clients, one an hour; some claims without a result."""
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    for n in range(14):
        worker = ada if n % 2 else bob
        mine = await bench.held(worker, 1 + n % 3)
        if n % 7 == 3:
            await bench.release(mine, claims.UNDELIVERED)
            (mine,) = await bench.claim(worker)
        await bench.settle(submit(mine))
        if n % 5 == 4:
            await bench.delete(mine.items)
    await bench.execute("UPDATE result SET at = at - interval '1 h' * (1000 - claim_id)")
    await bench.execute(
        "UPDATE claim SET begun_at = begun_at - interval '1 h' * (1000 - claim_id), "
        "ended_at = ended_at - interval '1 h' * (1000 - claim_id)"
    )


async def _expected(bench: Bench, where: str, *values: object) -> list[tuple[int, int]]:
    found = await bench.rows(
        f"SELECT claim_id, item_id FROM result JOIN claim USING (claim_id) WHERE {where} ORDER BY 1, 2", *values
    )
    return [(row["claim_id"], row["item_id"]) for row in found]


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_all_pages_of_results_together_are_all_of_them(bench: Bench, limit: int) -> None:
    await _history(bench)
    found = await _all_results(bench, limit)
    assert [(one.claim, one.item) for one in found] == await _expected(bench, "true")


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_results_of_one_client_or_of_a_time_page_by_page(bench: Bench, limit: int) -> None:
    await _history(bench)
    found = await _all_results(bench, limit, client="ada")
    assert [(one.claim, one.item) for one in found] == await _expected(bench, "client_id = 'ada'")
    times: list[datetime] = [row["at"] for row in await bench.rows("SELECT DISTINCT at FROM result ORDER BY at")]
    since, until = times[2], times[-2]
    found = await _all_results(bench, limit, since=since, until=until)
    assert [(one.claim, one.item) for one in found] == await _expected(bench, "at >= $1 AND at < $2", since, until)
    assert found


async def test_results_of_one_item_page_by_page(bench: Bench) -> None:
    ada = await bench.worker("ada")
    (item,) = await bench.items(1)
    for _ in range(5):
        await bench.prioritize([item])
        (mine,) = await bench.claim(ada)
        await bench.settle_one(submit(mine))
    key = await bench.value("SELECT key FROM item")
    for limit in (1, 2, 9):
        assert len(await _all_results(bench, limit, canonical=key)) == 5
        assert await _all_results(bench, limit, canonical=key, client="bob") == []


async def test_claims_that_kept_no_result_do_not_hide_those_behind_them(bench: Bench) -> None:
    ada = await bench.worker("ada")
    for n in range(8):
        mine = await bench.held(ada, 1)
        await bench.settle(submit(mine))
        if 1 <= n <= 6:
            await bench.delete(mine.items)
    assert len(await _all_results(bench, 2)) == 2


# Many new ones


async def _add_new(bench: Bench, *keys: str, priority: int = 100, start: float = 0.0) -> list[ItemId]:
    """New items that wait, as many of one request do."""
    async with bench.database.transaction() as db:
        new = await adding.add_new(db, [(key, None, "{}") for key in keys])
        await adding.join_new(db, bench.service, new, priority, start)
    return new


@pytest.mark.parametrize("ahead", [0, 1, 1020, 1023])
@pytest.mark.parametrize("count", [1, 5, 1024, 3000])
async def test_many_new_items_wait_and_are_known_whatever_blocks_they_are_in(
    bench: Bench, ahead: int, count: int
) -> None:
    """Blocks of 1,024 ids end within what is added, before it or behind it."""
    before = await bench.waiting(1)
    await bench.execute("SELECT setval('item_item_id_seq', 2047 + $1)", ahead)
    new = await _add_new(bench, *(f"n{n:04}" for n in range(count)), priority=7, start=60.0)
    assert new == list(range(2048 + ahead, 2048 + ahead + count))
    enrolled = await bench.rows("SELECT item_id FROM enrolled_item ORDER BY item_id")
    assert [row["item_id"] for row in enrolled] == before + new
    waiting = await bench.rows("SELECT * FROM waiting_item WHERE priority = 7 ORDER BY item_id")
    assert [row["item_id"] for row in waiting] == new
    assert {(row["since"] - row["rank_at"]).total_seconds() for row in waiting} == {60.0}
    assert await _known(bench, "n0000") == [new[0]]
    assert await _join(bench, [*before, *new]) == 0, "nothing joins twice"


async def test_many_new_items_keep_key_and_attributes(bench: Bench) -> None:
    """By the thousand, with numbers of items beyond 32 bits."""
    await bench.execute("SELECT setval('item_item_id_seq', $1)", 2**40 + 255)
    plain = [(f"n{n:04}", None, "{}") for n in range(1500)]
    others = [("Näme", "näme", '{"à": [1, "x"]}'), ("zZ", "zz", '{"followers": 7}')]
    async with bench.database.transaction() as db:
        new = await adding.add_new(db, [*plain, others[1], others[0]])

    rows = await bench.rows("SELECT item_id, key, canonical, attributes::text AS text FROM item ORDER BY item_id")
    assert [row["item_id"] for row in rows] == new == list(range(2**40 + 256, 2**40 + 256 + len(rows)))
    assert [(row["key"], row["canonical"], row["text"]) for row in rows] == [*plain, others[1], others[0]]


async def test_if_one_of_many_is_known_none_is_added(bench: Bench) -> None:
    (known,) = await _add(bench, "b")
    with pytest.raises(adding.KeysKnown):
        await _add_new(bench, "a", "b", "c")
    assert await bench.value("SELECT count(*) FROM item") == 1
    assert await bench.places(known) == []


async def test_many_that_are_added_at_once_share_blocks_and_lose_nothing(bench: Bench, dsn: str) -> None:
    many = Database(dsn, size=4)
    await many.open()

    async def add(name: int) -> list[ItemId]:
        found: list[ItemId] = []
        for part in range(5):
            async with many.transaction() as db:
                new = await adding.add_new(db, [(f"{name}-{part}-{n}", None, "{}") for n in range(700)])
                await adding.join_new(db, bench.service, new, 100, 0.0)
            async with many.connection() as db:
                few = await adding.add(db, [(f"{name}-{part}-few", None, "{}")], {bench.service: 0.0}, 100)
            found += [*new, *few.values()]
        return found

    added = sorted(chain.from_iterable(await asyncio.gather(*(add(name) for name in range(4)))))
    await many.close()
    assert len(set(added)) == 4 * 5 * 701
    for view in ("enrolled_item", "waiting_item"):
        assert [row["item_id"] for row in await bench.rows(f"SELECT item_id FROM {view} ORDER BY 1")] == added
