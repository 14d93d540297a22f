"""A dear look is taken seldom, and once for all who ask at the same time."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.errors import TooSlow, Unavailable
from coordinator.stats import cached_query
from coordinator.stats.cached_query import CachedQuery
from coordinator.store.pool import Connection, Database


class Clock:
    """Monotonic time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cached_query, "monotonic", clock)
    return clock


async def test_a_look_waits_a_hundred_times_what_it_cost(database: Database, clock: Clock) -> None:
    looks = 0

    async def look(db: Connection) -> int:
        nonlocal looks
        looks += 1
        clock.now += 0.05
        return looks

    one = CachedQuery(database, look)
    found = []
    for passed in (0.0, 1.0, 1.0, 3.9, 0.2):
        clock.now += passed
        found.append(await one.get())
    assert found == [1, 2, 2, 2, 3]


async def test_one_slow_look_among_quick_ones_ages_nothing(database: Database, clock: Clock) -> None:
    costs = [0.0, 0.5, 0.0, 0.0]
    looks = 0

    async def look(db: Connection) -> int:
        nonlocal looks
        clock.now += costs[looks]
        looks += 1
        return looks

    one = CachedQuery(database, look)
    found = []
    for _ in costs:
        found.append(await one.get())
        clock.now += 1.0
    assert found == [1, 2, 3, 4]


async def test_a_cheap_look_is_taken_each_second(database: Database, clock: Clock) -> None:
    looks = 0

    async def look(db: Connection) -> int:
        nonlocal looks
        looks += 1
        return looks

    one = CachedQuery(database, look)
    assert [await one.get() for _ in range(3)] == [1, 1, 1]
    clock.now += 0.95
    assert list(await asyncio.gather(*(one.get() for _ in range(5)))) == [2] * 5


async def test_a_look_that_failed_is_taken_again(database: Database, clock: Clock) -> None:
    failures = [Unavailable("away")]

    async def look(db: Connection) -> str:
        if failures:
            raise failures.pop()
        return "found"

    one = CachedQuery(database, look)
    with pytest.raises(Unavailable):
        await one.get()
    assert await one.get() == "found"


async def test_a_look_that_takes_too_long_is_given_up_and_not_taken_again_at_once(
    database: Database, clock: Clock
) -> None:
    looks = 0
    costs = [0.0, 60.0, 60.0, 0.0]

    async def look(db: Connection) -> int:
        nonlocal looks
        looks += 1
        await db.execute("SELECT pg_sleep($1)", costs[looks - 1])
        return looks

    one = CachedQuery(database, look, deadline=0.05)
    assert await one.get() == 1
    clock.now += 1
    assert await one.get() == 1  # it is old, but better than none
    assert database.trouble is None

    another = CachedQuery(database, look, deadline=0.05)
    for _ in range(2):  # the second time within its pause
        with pytest.raises(TooSlow):
            await another.get()
    assert looks == 3
    clock.now += 1
    assert await another.get() == 4
