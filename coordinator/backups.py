"""Backup and restore of the database of a server, and the fence that a restore raises.  deploy/README.md, "Backup" """

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres, own_folder
from coordinator.embedded.archive import check_is_archive, dump, load
from coordinator.errors import ConfigError
from coordinator.services import load_plugins, tables_of
from coordinator.store import fence, migrate, restored
from coordinator.store.fence import Fence
from coordinator.store.pool import Database


async def back_up(settings: Settings, file: Path) -> int:
    """Write the settings' database into a new file, online; returns its bytes.

    Raises:
        ConfigError: there is no such database, or the file cannot be written.
        UnknownSchema, Unavailable: the database is not one of this program, or cannot be reached.
    """
    async with existing_database(settings) as database:
        await migrate.pending(database, tables_of(load_plugins()))
        return await asyncio.to_thread(dump, database.dsn, file)


@dataclass(frozen=True, slots=True)
class Restored:
    """A database that was restored: the fence around its claims, and the migrations that its schema was behind."""

    fence: Fence
    migrated: int


async def restore(settings: Settings, file: Path) -> Restored:
    """Load a backup into the settings' database, which has to be empty, and raise a fence around its claims.

    An embedded database is made if it is missing.

    Raises:
        ConfigError: the file is no backup or damaged, the database is not empty, or a server runs on the folder.
        UnknownSchema, Unavailable: the backup is of a newer program, or the database cannot be reached.
    """
    check_is_archive(file)
    async with _owned_database(settings) as database:
        async with database.connection() as db:
            if (found := await restored.any_table(db)) is not None:
                raise ConfigError(
                    f"database: it is not empty (table {found}); expected a new data folder, or an empty database"
                )

        await asyncio.to_thread(load, file, database.dsn)
        async with database.connection() as db:
            await restored.check(db)
        migrated = await migrate.migrate(database, tables_of(load_plugins()))
        raised = await raise_fence(database)
        async with database.connection() as db:
            await restored.analyze(db)
    return Restored(raised, len(migrated))


async def raise_fence(database: Database) -> Fence:
    """Raise a fence around the claims of a database.

    Raises:
        ConfigError: the role may not do so.
        Unavailable: it cannot be reached.
    """
    async with database.transaction() as db:
        return await fence.raise_fence(db)


@asynccontextmanager
async def existing_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the settings' database; an embedded one that does not run is started for as long.

    Raises:
        ConfigError: there is none.
        Unavailable: it cannot be reached.
    """
    if settings.database is None and not (settings.data / "data" / "PG_VERSION").exists():
        raise ConfigError(f"database: none is given, and there is no embedded one in {settings.data}")
    async with _opened(settings) as database:
        yield database


@asynccontextmanager
async def _owned_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the settings' database; of an embedded one, this program is the only server meanwhile."""
    lock = None if settings.database else await asyncio.to_thread(own_folder, settings.data)
    try:
        async with _opened(settings) as database:
            yield database
    finally:
        if lock is not None:
            lock.release()


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    postgres = None if settings.database else EmbeddedPostgres(settings.data)
    if postgres is not None:
        await asyncio.to_thread(postgres.start)

    try:
        database = Database(settings.database or postgres.dsn, size=2)  # type: ignore[union-attr]  # one of them is there
        try:
            await database.open()
            yield database
        finally:
            await database.close()
    finally:
        if postgres is not None:
            await asyncio.to_thread(postgres.stop)
