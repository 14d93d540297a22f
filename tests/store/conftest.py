"""The tests of the store share one database, emptied before each: cloning one for each costs more than the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from coordinator.store.pool import Database
from tests.conftest import TEMPLATE
from tests.store.bench import Bench

EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'migration'
                 ORDER BY tablename IN ('client', 'service'), tablename LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
END $$"""


@pytest.fixture(scope="package")
def shared_dsn(template: str) -> Iterator[str]:
    """A migrated database for all tests of this package."""

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(template)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute(f"CREATE DATABASE store_tests TEMPLATE {TEMPLATE}"))
    head, _, query = template.partition("?")
    yield f"{head.rsplit('/', 1)[0]}/store_tests" + (f"?{query}" if query else "")
    asyncio.run(execute("DROP DATABASE store_tests WITH (FORCE)"))


@pytest.fixture
async def dsn(shared_dsn: str) -> AsyncIterator[str]:
    """That database, empty."""
    connection = await asyncpg.connect(shared_dsn)
    await connection.execute(EMPTY)
    yield shared_dsn
    await connection.close()


@pytest.fixture
async def bench(database: Database) -> Bench:
    """A service without items on that database."""
    return await Bench.make(database)
