"""Numbered `.sql` files, one transaction each, with a checksum kept beside what was applied.

Safe when many nodes start at once on an empty database: an advisory lock lets one migrate, the others wait and
find it done.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

from coordinator.errors import UnknownSchema
from coordinator.store.pool import Connection, Database

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('coordinator.migration'))"

_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now())"""

_HAS_LEDGER = "SELECT to_regclass('migration') IS NOT NULL"

_APPLIED = "SELECT number, name, checksum FROM migration ORDER BY number"

_NOTE = "INSERT INTO migration (number, name, checksum) VALUES ($1, $2, $3)"

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped() -> list[Migration]:
    """The migrations in this package, in order."""
    found = []
    for file in files("coordinator.store").joinpath("migrations").iterdir():
        match = _FILE.match(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


async def migrate(database: Database) -> list[Migration]:
    """Apply what is missing; returns what this call applied.

    Raises:
        UnknownSchema: the database is newer than this program, or a file has changed since it was applied.
        Unavailable: the database cannot be reached.
    """
    done: list[Migration] = []
    while True:
        async with database.transaction() as connection:
            await connection.execute(_LOCK, timeout=600)
            await connection.execute(_LEDGER)
            missing = await _missing(connection)
            if not missing:
                return done
            await connection.execute(missing[0].sql, timeout=3600)
            await connection.execute(_NOTE, missing[0].number, missing[0].name, missing[0].checksum)
        done.append(missing[0])


async def pending(database: Database) -> list[Migration]:
    """What `migrate` would apply.

    Raises:
        UnknownSchema, Unavailable: as `migrate`.
    """
    async with database.connection() as connection:
        return await _missing(connection)


async def _missing(connection: Connection) -> list[Migration]:
    known = {migration.number: migration for migration in shipped()}
    applied = await connection.fetch(_APPLIED) if await connection.fetchval(_HAS_LEDGER) else []
    for row in applied:
        mine = known.pop(row["number"], None)
        if mine is None:
            raise UnknownSchema(
                f"The database has migration {row['number']} ({row['name']}), which this program does not know: "
                "it was made by a newer version."
            )
        if mine.checksum != row["checksum"]:
            raise UnknownSchema(
                f"Migration {row['number']} ({row['name']}) is not the one that the database was made with."
            )
    return [known[number] for number in sorted(known)]
