"""Leaderboards have what was added, whenever days are folded into weeks and months, and each read has a bound."""

from __future__ import annotations

import pytest

from coordinator.model import ServiceId
from coordinator.store import boards
from coordinator.store.boards import SPANS, Span
from tests.store.bench import Bench

# The day on which $1's rows stand now, moved to the Monday of this week, or to the first of this month.
_MOVE = "UPDATE client_day SET day = date_trunc($2, now())::date - $3::int WHERE client_id = $1"


async def places(bench: Bench, span: Span, most: int = 1000) -> list[tuple[int, str, int]]:
    """The leaders of a span, by its board."""
    async with bench.database.connection() as db:
        found = await boards.board(db, span, None, most)
    assert found.total == sum(found.standings)
    return [(leader.place, leader.client_id, leader.settled) for leader in found.leaders]


@pytest.fixture
async def settled(bench: Bench) -> Bench:
    """Four clients: ada and cleo have settled five today, and bob one; ada ten in all, and bob thirty."""
    for name in ("ada", "bob", "cleo", "dan"):
        await bench.worker(name)
    await bench.execute("UPDATE membership SET settled = 10 WHERE client_id = 'ada'")
    await bench.execute("UPDATE membership SET settled = 30 WHERE client_id = 'bob'")
    async with bench.database.connection() as db:
        await boards.add_days(db, [("ada", bench.service, 2), ("cleo", bench.service, 5)])
        await boards.add_days(db, [("ada", bench.service, 3), ("bob", bench.service, 1)])
    return bench


async def test_places_are_shared_by_those_who_settled_as_much(settled: Bench) -> None:
    today = [(1, "ada", 5), (1, "cleo", 5), (3, "bob", 1)]
    assert [await places(settled, span) for span in ("day", "week", "month")] == [today] * 3
    assert await places(settled, "all") == [(1, "bob", 30), (2, "ada", 10)]
    async with settled.database.connection() as db:
        assert (await boards.board(db, "day", ServiceId(settled.service + 1), 10)).standings == []
        first = await boards.board(db, "day", settled.service, 1)
        assert ([leader.client_id for leader in first.leaders], first.standings) == (["ada"], [5, 5, 1])
        found, after = [], (2**62, "")
        while page := await boards.page(db, "day", None, after, 2):
            found += [(leader.place, leader.client_id, leader.settled) for leader in page]
            after = (page[-1].settled, page[-1].client_id)
        assert found == today
        assert await boards.of_client(db, "ada") == {"day": 5, "week": 5, "month": 5, "all": 10}
        assert await boards.of_client(db, "nobody") == dict.fromkeys(SPANS, 0)


async def test_days_that_are_over_count_for_their_week_and_month(
    settled: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board is the same before days are folded, in between, and afterwards."""
    await settled.execute("UPDATE client_day SET day = day - 1")
    (row,) = await settled.rows(
        """SELECT now()::date > date_trunc('week', now())::date AS in_week,
                  now()::date > date_trunc('month', now())::date AS in_month"""
    )
    async with settled.database.connection() as db:
        await boards.add_days(db, [("bob", settled.service, 2)])
    both = [(1, "ada", 5), (1, "cleo", 5), (3, "bob", 3)]
    today = [(1, "bob", 2)]
    expected = [today, both if row["in_week"] else today, both if row["in_month"] else today]

    monkeypatch.setattr(boards, "ROWS_AT_ONCE", 2)
    for left in (4, 2, 1, 1):
        assert (await settled.rows("SELECT count(*) AS n FROM client_day"))[0]["n"] == left
        assert [await places(settled, span) for span in ("day", "week", "month")] == expected
        async with settled.database.connection() as db:
            assert [(await boards.of_client(db, "bob"))[span] for span in ("week", "month")] == [
                {name: settled for _, name, settled in board}["bob"] for board in expected[1:]
            ]
            await boards.fold_days(db)


async def test_weeks_and_months_that_are_over_go(settled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "ROWS_AT_ONCE", 2)
    await settled.execute(
        """INSERT INTO client_period (period, begins, client_id, service_id, settled)
           SELECT period, date_trunc(period, now() - make_interval(days => ago))::date, 'ada', $1, 7
             FROM unnest(ARRAY['week', 'month']) AS p (period), unnest(ARRAY[0, 40, 80, 120]) AS a (ago)""",
        settled.service,
    )
    async with settled.database.connection() as db:
        for left in (8 - 4, 2, 2):
            await boards.fold_days(db)
            assert await db.fetchval("SELECT count(*) FROM client_period") == left
    assert (await places(settled, "month"))[0] == (1, "ada", 12)


_CROWD = """
WITH crowd AS (
    INSERT INTO client (client_id, screen_name, registered)
    SELECT 'client-' || n, 'name-' || n, true FROM generate_series(1, 5000) n RETURNING client_id)
INSERT INTO client_period (period, begins, client_id, service_id, settled)
SELECT period, date_trunc(period, now())::date, client_id, $1, 5
  FROM crowd, unnest(ARRAY['week', 'month']) AS p (period)"""


async def test_what_one_client_settled_is_read_from_its_own_rows(bench: Bench) -> None:
    await bench.execute(_CROWD, bench.service)
    async with bench.database.connection() as db:
        await db.execute("ANALYZE client_period")
        await db.execute("SET plan_cache_mode = force_generic_plan")
        await db.execute(f"PREPARE of_client AS {boards._OF_CLIENT}")
        plan = await db.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) EXECUTE of_client('client-7', '{day,week,month,all}')"
        )
        assert [row[0] for row in plan if "Seq Scan on client_period" in row[0]] == []
