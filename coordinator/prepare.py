"""Prepares the database of a server: started if embedded, migrated, with its first services and admin token."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from coordinator import credentials
from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres, close_to_others, own_folder
from coordinator.errors import UnknownSchema
from coordinator.keys import KeyForm
from coordinator.services import load_plugins, tables_of
from coordinator.store import fence, migrate, services, tokens
from coordinator.store.pool import Database
from coordinator.wording import counted

log = structlog.get_logger()

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - the name of a file

LOG_LOOK_INTERVAL = 5.0
"""Seconds between two looks at the size of Postgres's log."""

INITIAL_SERVICES = ("dm_check", "follower_check", "following_check")
"""The services that a new database has, all active."""


@dataclass(frozen=True, slots=True)
class PreparedDatabase:
    """A database that is ready for nodes; `admin_token` only if the data folder is this program's own."""

    dsn: str
    admin_token: str | None


@asynccontextmanager
async def prepared_database(settings: Settings) -> AsyncIterator[PreparedDatabase]:
    """Prepare the database that the settings name; an embedded one is started, and stopped at the end.

    Raises:
        ConfigError: the folder or the database cannot be used, or another program owns the folder.
        UnknownSchema: the schema is older or newer than this program's.
        Unavailable: the database cannot be reached.
    """
    if settings.database is not None:
        yield await prepare_database(settings.database, None, settings.key_form)
        return

    lock = await asyncio.to_thread(own_folder, settings.data)
    try:
        postgres = EmbeddedPostgres(settings.data)
        await asyncio.to_thread(postgres.start)
        log_watch = asyncio.create_task(_bound_log(postgres), name="log of Postgres")
        try:
            yield await prepare_database(postgres.dsn, settings.data, settings.key_form)
        finally:
            log_watch.cancel()
            await asyncio.wait([log_watch])
            await asyncio.to_thread(postgres.stop)
    finally:
        lock.release()


async def _bound_log(postgres: EmbeddedPostgres) -> None:
    """Keep the log of Postgres small until cancelled."""
    while True:
        await asyncio.sleep(LOG_LOOK_INTERVAL)
        try:
            await asyncio.to_thread(postgres.trim_log)
        except OSError as failure:
            log.warning("the log of Postgres cannot be cut", reason=str(failure))


async def prepare_database(dsn: str, folder: Path | None, key_form: KeyForm | None = None) -> PreparedDatabase:
    """Check or migrate the schema, and add the first services and the first token if they are missing.

    `folder` is the data folder of an embedded database, which alone is migrated; `key_form` is how a new one is to
    compare keys, and how any other does already.

    Raises:
        UnknownSchema, Unavailable, ConfigError: as `prepared_database`; ConfigError also if a sequence lags behind.
    """
    plugins = load_plugins()
    tables = tables_of(plugins)
    database = Database(dsn, size=2)
    await database.open()

    try:
        if folder is not None:
            await migrate.migrate(database, tables, key_form)
        elif missing := await migrate.pending(database, tables):
            raise UnknownSchema(
                f"The database lacks {counted(len(missing), 'migration')}; run: coordinator db migrate --database DSN"
            )
        async with database.connection() as db:
            await fence.check_sequences(db)
            await migrate.refuse_other_form(db, key_form)
            if not await services.load(db):
                for name in INITIAL_SERVICES:
                    await services.add(db, name, name, plugins[name].title, {})
        token = None if folder is None else await _admin_token(database, folder)
    finally:
        await database.close()

    return PreparedDatabase(dsn, token)


async def _admin_token(database: Database, folder: Path) -> str:
    """Return the admin token of a data folder; make it if its file is missing or its token is not valid."""
    path = folder / ADMIN_TOKEN_FILE
    async with database.connection() as db:
        if path.exists():
            with suppress(PermissionError):  # another account's
                close_to_others(path)
            token = path.read_text(encoding="ascii").strip()
            if await tokens.find(db, credentials.hash_token(token)) is not None:
                return token
        made = credentials.make_token()
        await tokens.issue(db, made.token_id, made.hash, "admin", "first", None, None)
    _write_private(path, made.token + "\n")
    return made.token


def _write_private(path: Path, text: str) -> None:
    """Write a new file that no other account can read at any moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
