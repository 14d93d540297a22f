"""A year in short: `python -m tests.bench.year` plays it with a million items, and holds what each result takes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from coordinator.store.pool import Database
from tests.bench.year import FLAT, Year, further
from tests.databases import Databases
from tests.store.bench import Bench

ITEMS = 5_400

FIXED = 1.5
"""By how much pages that are not full, hours and lines add to a result where there are so few of them."""

BOUNDED = {
    "client",
    "membership",
    "session",
    "open_bucket",
    "waiting",
    "client_day",
    "client_period",
    "counter_flush",
    "return_block",
}
"""Tables that grow with what is going on, not with what was done."""


@pytest.fixture
async def unused(databases: Databases) -> AsyncIterator[Database]:
    """A database of its own: what an earlier test has left free in a table would be filled first."""
    database = Database(await databases.create("year"))
    await database.open()
    yield database
    await database.close()
    await databases.drop("year")


async def test_what_was_done_takes_no_more_each_time_and_what_goes_on_no_more_at_all(unused: Database) -> None:
    ends = await Year(await Bench.make(unused), ITEMS).play(3)
    assert [end.results for end in ends] == [ITEMS, 2 * ITEMS, 3 * ITEMS]
    second, third = further(ends)
    assert third <= FLAT * FIXED * second
    grown = {name: (ends[1].tables[name], ends[2].tables[name]) for name in BOUNDED}
    assert {name: sizes for name, sizes in grown.items() if sizes[1] > FLAT * sizes[0]} == {}
