"""Migrations: each once, in order, however many nodes start together; never on a schema of somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import asyncpg
import pytest

from coordinator.embedded import EmbeddedPostgres
from coordinator.errors import UnknownSchema
from coordinator.store import migrate
from coordinator.store.pool import Database


@pytest.fixture
async def empty(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A database without anything in it."""
    name = "empty_for_migrations"
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    head, _, query = postgres.dsn.partition("?")
    database = Database(f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else ""), size=8)
    await database.open()
    yield database
    await database.close()
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def test_of_eight_that_migrate_together_one_applies_each_file(empty: Database) -> None:
    applied = await asyncio.gather(*(migrate.migrate(empty) for _ in range(8)))
    assert sorted(one.number for part in applied for one in part) == [one.number for one in migrate.shipped()]
    assert await migrate.pending(empty) == []


async def test_what_is_pending_is_what_migrate_applies(empty: Database) -> None:
    pending = await migrate.pending(empty)
    assert pending == migrate.shipped()
    assert await migrate.migrate(empty) == pending
    assert await migrate.migrate(empty) == []


async def test_a_file_that_has_changed_since_is_refused(empty: Database) -> None:
    await migrate.migrate(empty)
    async with empty.connection() as db:
        await db.execute("UPDATE migration SET checksum = 'other' WHERE number = 1")
    with pytest.raises(UnknownSchema, match=r"^Migration 1 "):
        await migrate.migrate(empty)
    with pytest.raises(UnknownSchema, match=r"^Migration 1 "):
        await migrate.pending(empty)


async def test_a_migration_from_the_future_is_refused(empty: Database) -> None:
    await migrate.migrate(empty)
    async with empty.connection() as db:
        await db.execute("INSERT INTO migration (number, name, checksum) VALUES (9999, 'later', 'x')")
    for step in (migrate.migrate, migrate.pending):
        with pytest.raises(UnknownSchema, match="9999"):
            await step(empty)


async def test_a_migration_that_fails_leaves_nothing_behind(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    good = migrate.shipped()[0]
    bad = migrate.Migration(2, "bad", "CREATE TABLE half (a int); SELECT 1 / 0")
    monkeypatch.setattr(migrate, "shipped", lambda: [good, bad])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(empty)
    assert await migrate.pending(empty) == [bad]
    async with empty.connection() as db:
        assert await db.fetchval("SELECT to_regclass('half')") is None


def test_the_files_are_numbered_without_a_gap() -> None:
    numbers = [one.number for one in migrate.shipped()]
    assert numbers
    assert numbers[0] == 1
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
