"""Numbered `.sql` files, one transaction each, with a checksum kept beside what was applied.

Safe when many nodes start at once on an empty database: an advisory lock lets one migrate, the others wait and
find it done.  Plugins may bring folders of their own; those come after this package's, each with numbers of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import chain

from coordinator.errors import UnknownSchema
from coordinator.store.pool import Connection, Database

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('coordinator.migration'))"

_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
    plugin      text NOT NULL DEFAULT '',      -- whose tables; '' is this package
    number      integer NOT NULL,
    name        text NOT NULL,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (plugin, number))"""

_HAS_LEDGER = "SELECT to_regclass('migration') IS NOT NULL"

_APPLIED = "SELECT plugin, number, name, checksum FROM migration ORDER BY plugin, number"

_NOTE = "INSERT INTO migration (plugin, number, name, checksum) VALUES ($1, $2, $3, $4)"

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

    def __str__(self) -> str:
        return f"{self.number} of {self.plugin}" if self.plugin else str(self.number)


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


async def migrate(database: Database, plugins: Folders | None = None) -> list[Migration]:
    """Apply the migrations that are missing; returns those that this call applied.

    Raises:
        UnknownSchema: the database is newer than this program, or a file has changed since it was applied.
        Unavailable: the database cannot be reached.
    """
    done: list[Migration] = []
    while True:
        async with database.transaction() as connection:
            await connection.execute(_LOCK, timeout=600)
            await connection.execute(_LEDGER)
            missing = await _missing(connection, plugins)
            if not missing:
                return done

            await connection.execute(missing[0].sql, timeout=3600)
            first = missing[0]
            await connection.execute(_NOTE, first.plugin, first.number, first.name, first.checksum)
        done.append(first)


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
        if mine is None:
            raise UnknownSchema(
                f"The database has migration {row['number']} ({row['name']}), which this program does not know: "
                "it was made by a newer version."
            )
        if mine.checksum != row["checksum"]:
            raise UnknownSchema(f"Migration {mine} ({row['name']}) is not the one that the database was made with.")

    return list(known.values())
