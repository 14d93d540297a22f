"""The tests of the store begin with an empty database, without even the first services."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.databases import Databases
from tests.store.bench import Bench


@pytest.fixture
async def dsn(databases: Databases) -> str:
    """A migrated database without a row."""
    return await databases.shared(empty=True)


@pytest.fixture
async def bench(database: Database) -> Bench:
    """A service without items on that database."""
    return await Bench.make(database)
