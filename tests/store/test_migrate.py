"""Migrations: each once, in order, however many nodes start together; never on a schema of somebody else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest

from coordinator.embedded import EmbeddedPostgres
from coordinator.errors import MigrationFailed, Unavailable, UnknownSchema
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


@pytest.fixture
def several(tmp_path: Path) -> dict[str, Traversable]:
    """Seven migrations of a plugin, each of which needs the one before."""
    (tmp_path / "0001_begin.sql").write_text("CREATE TABLE steps (number int); INSERT INTO steps VALUES (1)")
    for number in range(2, 8):
        step = f"ALTER TABLE steps ADD COLUMN step_{number} int; INSERT INTO steps VALUES ({number})"
        (tmp_path / f"{number:04}_step_{number}.sql").write_text(step)
    (tmp_path / "notes.txt").write_text("Nothing to apply.")
    return {"steps": tmp_path}


async def test_of_eight_that_migrate_together_one_applies_each_file(
    empty: Database, several: dict[str, Traversable]
) -> None:
    applied = await asyncio.gather(*(migrate.migrate(empty, several) for _ in range(8)))
    files = migrate.shipped() + migrate.in_folder(several["steps"], "steps")
    assert len(files) >= 8
    assert sorted((one.plugin, one.number) for part in applied for one in part) == [
        (one.plugin, one.number) for one in files
    ]
    assert await migrate.pending(empty, several) == []
    async with empty.connection() as db:
        assert await db.fetchval("SELECT array_agg(number) FROM steps") == list(range(1, 8))


async def test_what_is_pending_is_what_migrate_applies(empty: Database, several: dict[str, Traversable]) -> None:
    pending = await migrate.pending(empty, several)
    assert pending == migrate.shipped() + migrate.in_folder(several["steps"], "steps")
    assert await migrate.migrate(empty, several) == pending
    assert await migrate.migrate(empty, several) == []


async def test_a_file_that_was_added_is_applied_alone(empty: Database, several: dict[str, Traversable]) -> None:
    await migrate.migrate(empty, several)
    added = Path(str(several["steps"])) / "0008_more.sql"
    added.write_text("INSERT INTO steps VALUES (8)")
    assert [str(one) for one in await migrate.migrate(empty, several)] == ["8 of steps"]
    added.write_text("INSERT INTO steps VALUES (9)")
    with pytest.raises(UnknownSchema, match=r"^Migration 8 of steps "):
        await migrate.pending(empty, several)


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


BAD = """
CREATE TABLE half (a int);
-- Neither; of these is the end; nor is '
INSERT INTO half VALUES (1);  -- of the first
SELECT
    1 / 0;
"""


async def test_a_migration_that_fails_leaves_nothing_behind(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether Postgres refuses a statement, the connection ends in its middle, or the file is cut off."""
    good = migrate.shipped()[0]
    bad = migrate.Migration(2, "bad", BAD)
    cut = migrate.Migration(2, "cut", BAD.replace("1 / 0", "pg_terminate_backend(pg_backend_pid())"))
    unended = migrate.Migration(2, "unended", BAD + "SELECT '")
    mended = migrate.Migration(2, "mended", BAD.replace("1 / 0", "1"))
    for kind, failure in ((bad, MigrationFailed), (cut, Unavailable), (unended, MigrationFailed)):
        monkeypatch.setattr(migrate, "shipped", lambda kind=kind: [good, kind])
        with pytest.raises(failure) as told:
            await migrate.migrate(empty)
        assert await migrate.pending(empty) == [kind]
        async with empty.connection() as db:
            assert await db.fetchval("SELECT to_regclass('half')") is None
        if kind is bad:
            expected = (
                "Migration 2 (bad) failed in the statement of line 5, and nothing of it was kept: division by zero"
            )
            assert str(told.value) == expected

    monkeypatch.setattr(migrate, "shipped", lambda: [good, mended])
    assert await migrate.migrate(empty) == [mended]


async def test_each_statement_is_sent_alone(empty: Database) -> None:
    """As Citus wants it.  Postgres takes a whole file, unless it is to be prepared."""

    class Preparing:
        async def execute(self, sql: str, timeout: float) -> None:
            await connection.fetch(sql, timeout=timeout)

    async with empty.transaction() as connection:
        for migration in migrate.shipped():
            await migrate._carry_out(Preparing(), migration)
        assert await connection.fetchval("SELECT count(*) FROM pg_proc WHERE proname = 'free_buckets'") == 1


def test_the_files_are_numbered_without_a_gap() -> None:
    numbers = [one.number for one in migrate.shipped()]
    assert numbers
    assert numbers[0] == 1
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))


async def test_a_program_serves_what_is_newer_by_additive_steps(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = migrate.shipped()
    more = migrate.Migration(2, "more", "-- additive\nALTER TABLE item ADD COLUMN more text")
    other = migrate.Migration(3, "other", "ALTER TABLE item RENAME COLUMN more TO other")
    with monkeypatch.context() as newer:
        newer.setattr(migrate, "shipped", lambda: [*shipped, more])
        assert await migrate.migrate(empty) == [*shipped, more]
    assert await migrate.pending(empty) == []
    assert await migrate.migrate(empty) == []

    with monkeypatch.context() as newer:
        newer.setattr(migrate, "shipped", lambda: [*shipped, more, other])
        assert await migrate.migrate(empty) == [other]
    for step in (migrate.migrate, migrate.pending):
        with pytest.raises(UnknownSchema, match="3 \\(other\\)"):
            await step(empty)


async def test_a_migration_holds_nobody_up_for_its_locks(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = migrate.shipped()
    await migrate.migrate(empty)
    monkeypatch.setattr(migrate, "LOCK_PAUSE", 0.0)
    monkeypatch.setattr(migrate, "LOCK_ATTEMPTS", 2)
    monkeypatch.setattr(migrate, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    more = migrate.Migration(2, "more", "-- additive\nALTER TABLE item ADD COLUMN more text")
    monkeypatch.setattr(migrate, "shipped", lambda: [*shipped, more])
    async with empty.transaction() as reader:
        await reader.fetch("SELECT FROM item")
        with pytest.raises(Unavailable, match="does not get its locks"):
            await migrate.migrate(empty)
    assert await migrate.migrate(empty) == [more]


def test_an_additive_migration_only_adds() -> None:
    taken_away = r"\b(DROP|RENAME|TRUNCATE|DELETE|REVOKE|ALTER COLUMN|SET NOT NULL|CREATE OR REPLACE)\b"
    for additive in (one for one in migrate.shipped() if one.additive):
        assert not re.search(taken_away, additive.sql, re.IGNORECASE), additive
