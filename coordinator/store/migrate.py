"""Numbered `.sql` files, one transaction each, with a checksum kept beside what was applied.

A file is applied whole or not at all, statement by statement: whatever interrupts it, running it again begins it anew.
Safe when many nodes start at once on an empty database: an advisory lock lets one migrate, the others wait and
find it done.  Plugins may bring folders of their own; those come after this package's, each with numbers of its own.

Nodes serve while a migration runs, and after it.  A file whose first line is `-- additive` promises that programs which
know all but it still work: it adds tables, functions, indexes, and columns that may be null or have a default, and
changes nothing else.  So nodes of two versions run beside each other, and one goes back to the version before.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import chain

import asyncpg

from coordinator.errors import ConfigError, MigrationFailed, Unavailable, UnknownSchema
from coordinator.keys import KeyForm
from coordinator.store import key_form as chosen_form
from coordinator.store.faults import UNAVAILABLE_ERRORS
from coordinator.store.pool import Connection, Database
from coordinator.store.sql_statements import statements

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('coordinator.migration'))"

_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
    plugin      text NOT NULL DEFAULT '',      -- whose tables; '' is this package
    number      integer NOT NULL,
    name        text NOT NULL,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    additive    boolean NOT NULL DEFAULT false,  -- programs that know all but this one still work
    PRIMARY KEY (plugin, number))"""

_HAS_LEDGER = "SELECT to_regclass('migration') IS NOT NULL"

_APPLIED = "SELECT plugin, number, name, checksum, additive FROM migration ORDER BY plugin, number"

_NOTE = "INSERT INTO migration (plugin, number, name, checksum, additive) VALUES ($1, $2, $3, $4, $5)"

# Who waits for a lock on a whole table holds up all that come behind it.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"

LOCK_ATTEMPTS, LOCK_PAUSE = 30, 2.0
"""How often a migration tries to get its locks while nodes serve, and the seconds between."""

MIGRATION_DEADLINE = 3600.0
"""Seconds that one statement of a migration may take."""

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str
    plugin: str = ""
    """The plugin whose tables they are; '' is this package."""

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def additive(self) -> bool:
        """Whether programs that know all but this one still work."""
        return self.sql.startswith("-- additive\n")

    def __str__(self) -> str:
        return f"{self.number} of {self.plugin}" if self.plugin else str(self.number)


class _LocksHeld(Exception):
    """Others hold locks that a migration needs; the database itself is well."""


Folders = Mapping[str, Traversable]
"""The folders of migrations that plugins bring, by name."""


def shipped() -> list[Migration]:
    """List the migrations in this package, in order."""
    return in_folder(files("coordinator.store").joinpath("migrations"))


def in_folder(folder: Traversable, plugin: str = "") -> list[Migration]:
    """List the migrations of one folder, in order."""
    found = []
    for file in folder.iterdir():
        match = _FILE.match(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"), plugin))
    return sorted(found, key=lambda migration: migration.number)


async def migrate(
    database: Database, plugins: Folders | None = None, key_form: KeyForm | None = None
) -> list[Migration]:
    """Apply the migrations that are missing; returns those that this call applied.

    `key_form` is how a database that this call makes is to compare keys; one that is there must do it so already.

    Raises:
        ConfigError: the database compares keys in another form.
        UnknownSchema: the database is newer than this program, by more than additive migrations, or a file has changed
            since it was applied.
        MigrationFailed: Postgres refuses a statement; nothing of its file was kept, and those before it were.
        Unavailable: the database cannot be reached, or a migration does not get its locks.
    """
    done: list[Migration] = []
    attempts = 0
    while True:
        try:
            applied = await _apply_next(database, plugins, key_form)
        except _LocksHeld as failure:
            attempts += 1
            if attempts == LOCK_ATTEMPTS:
                raise Unavailable(f"A migration does not get its locks, since others hold them: {failure}") from failure
            await asyncio.sleep(LOCK_PAUSE)
        else:
            if applied is None:
                return done
            done.append(applied)


async def _apply_next(database: Database, plugins: Folders | None, key_form: KeyForm | None) -> Migration | None:
    """Apply the first migration that is missing; None if there is none."""
    async with database.transaction() as connection:
        await connection.execute(_LOCK, timeout=600)
        await connection.execute(_LEDGER)
        missing = await _missing(connection, plugins)
        if not missing:
            await refuse_other_form(connection, key_form)
            return None

        first = missing[0]
        await connection.execute(_LOCK_TIMEOUT)
        await _carry_out(connection, first)
        if key_form is not None and not first.plugin and first.number == 1:
            await chosen_form.choose(connection, key_form)
        await connection.execute(_NOTE, first.plugin, first.number, first.name, first.checksum, first.additive)
        return first


async def _carry_out(connection: Connection, migration: Migration) -> None:
    """Carry out the statements of a file, one at a time.

    Raises:
        MigrationFailed: Postgres refuses one of them, or one does not end.
        _LocksHeld: others hold locks that it needs.
    """
    try:
        found = list(statements(migration.sql))
    except ValueError as failure:
        raise MigrationFailed(f"Migration {migration} ({migration.name}) cannot be read: {failure}") from failure

    for statement in found:
        try:
            await connection.execute(statement.sql, timeout=MIGRATION_DEADLINE)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as failure:
            raise _LocksHeld(failure) from failure
        except UNAVAILABLE_ERRORS:
            raise
        except asyncpg.PostgresError as failure:
            raise MigrationFailed(
                f"Migration {migration} ({migration.name}) failed in the statement of line {statement.line}, and "
                f"nothing of it was kept: {failure}"
            ) from failure


async def refuse_other_form(connection: Connection, key_form: KeyForm | None) -> None:
    """Check that a database compares keys in this form, if one is given.

    Raises:
        ConfigError: it does not.
    """
    if key_form is not None and key_form != (form := await chosen_form.read(connection)):
        raise ConfigError(
            f"key_form: expected {form}, the form in which this database compares keys since it was made, "
            f"not {key_form!r}"
        )


async def pending(database: Database, plugins: Folders | None = None) -> list[Migration]:
    """List the migrations that `migrate` would apply.

    Raises:
        UnknownSchema, Unavailable: as `migrate`.
    """
    async with database.connection() as connection:
        return await _missing(connection, plugins)


async def _missing(connection: Connection, plugins: Folders | None) -> list[Migration]:
    folders = (in_folder(folder, name) for name, folder in sorted((plugins or {}).items()))
    known = {(migration.plugin, migration.number): migration for migration in chain(shipped(), *folders)}
    applied = await connection.fetch(_APPLIED) if await connection.fetchval(_HAS_LEDGER) else []

    for row in applied:
        mine = known.pop((row["plugin"], row["number"]), None)
        if mine is None and row["plugin"] not in (plugins or {}) and row["plugin"]:
            continue  # of a plugin that is not installed here: its tables are nobody's concern
        if mine is None and row["additive"]:
            continue  # of a newer version, which promises that this one still works
        if mine is None:
            raise UnknownSchema(
                f"The database has migration {row['number']} ({row['name']}), which this program does not know: "
                "it was made by a newer version."
            )
        if mine.checksum != row["checksum"]:
            raise UnknownSchema(f"Migration {mine} ({row['name']}) is not the one that the database was made with.")

    return list(known.values())
