"""The commands that work on the database itself, without a server: `db …`, and `token issue --database`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.access import AsJson, without_none
from coordinator.cli.exits import only_where_the_server_runs, with_exit_codes
from coordinator.cli.output import Output
from coordinator.config import Settings
from coordinator.credentials import make_token
from coordinator.errors import ConfigError
from coordinator.keys import KeyForm
from coordinator.services import load_plugins, tables_of
from coordinator.store import activity, distribution, migrate, tokens
from coordinator.store.pool import Database
from coordinator.wire.admin.tokens import TokenIssue

Dsn = Annotated[
    str | None,
    typer.Option("--database", metavar="DSN", help="The database. Default: the embedded one, if it runs in --data."),
]  # fmt: skip
DataDir = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the embedded Postgres.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.")]


@with_exit_codes
def migrate_(
    database: Dsn = None,
    data: DataDir = None,
    config: ConfigFile = None,
    key_form: Annotated[
        KeyForm | None,
        typer.Option(
            help="How a database that is made now compares keys, for good: handle takes accounts of X as the same "
            "whatever their case; exact compares keys as they are. Unless given, handle."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Bring the schema to what this program needs; safe to repeat, and while others do the same.

    Example: `coordinator db migrate --database postgresql://coordinator@db.example.org/coordinator`
    """
    settings = Settings(config=config, **without_none(database=database, data=data, key_form=key_form))
    applied = asyncio.run(_migrate(_dsn(settings), settings.key_form))
    Output(as_json=json).rows([_row(migration, "applied") for migration in applied])
    if not json:
        typer.echo(f"{len(applied)} applied" if applied else "Nothing to do: the schema is up to date.", err=True)


@with_exit_codes
def status(database: Dsn = None, data: DataDir = None, config: ConfigFile = None, json: AsJson = False) -> None:
    """Tell which migrations are applied, and which `db migrate` would apply.

    Example: `coordinator db status --data ./data`
    """
    settings = Settings(config=config, **without_none(database=database, data=data))
    missing = asyncio.run(_pending(_dsn(settings)))
    rows = [_row(migration, "pending" if migration in missing else "applied") for migration in _all_migrations()]
    Output(as_json=json).rows(rows)


@with_exit_codes
def distribute(
    database: Dsn = None,
    config: ConfigFile = None,
    shards: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Parts that the results are cut into. Default: 4 for a worker.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done, or why it cannot.")] = False,
    json: AsJson = False,
) -> None:
    """Spread the results over the workers of a Citus database; nothing is stored while they are moved.

    Example: `coordinator db distribute --database postgresql://owner@db.example.org/coordinator --dry-run`
    """
    settings = Settings(config=config, **without_none(database=database))
    steps = asyncio.run(_distribute(_dsn(settings), shards, dry_run))
    Output(as_json=json).rows([{"step": n, "does": step.does} for n, step in enumerate(steps, 1)])
    if not json:
        done = "Nothing was done." if dry_run else "Done."
        typer.echo(done if steps else "Nothing to do: the results are distributed.", err=True)


@with_exit_codes
def sql() -> None:
    """Print the schema's migrations as SQL, to be read or reviewed; it needs no database.

    Example: `coordinator db sql > schema.sql`
    """
    for migration in _all_migrations():
        plugin = f"{migration.plugin} " if migration.plugin else ""
        typer.echo(f"-- {plugin}{migration.number:04} {migration.name}\n{migration.sql.rstrip()}\n")


async def issue_token(dsn: str, message: TokenIssue) -> dict[str, Any]:
    """Issue a token in a database that no server runs on yet; returns the fields of `token.issue`.

    Raises:
        ConfigError: the DSN is not the address of a database, or its schema is missing or old.
        UnknownSchema, Unavailable: the schema is newer than this program, or there is no database.
    """
    new = make_token()

    async with _opened(Settings(database=dsn).database or dsn) as database:
        if await migrate.pending(database, tables_of(load_plugins())):
            raise ConfigError("database: its schema is not there yet, or old; coordinator db migrate makes it")

        async with database.transaction() as connection:
            await tokens.issue(
                connection,
                new.token_id,
                new.hash,
                message.role,
                message.label,
                message.expires_in,
                message.uses,
            )
            await activity.note(connection, "command line", "token.issue", new.token_id, "ok")

    return {"token_id": new.token_id, "token": new.token, "role": message.role, "label": message.label}


async def _migrate(dsn: str, key_form: KeyForm | None) -> list[migrate.Migration]:
    async with _opened(dsn) as database:
        return await migrate.migrate(database, tables_of(load_plugins()), key_form)


async def _pending(dsn: str) -> list[migrate.Migration]:
    async with _opened(dsn) as database:
        return await migrate.pending(database, tables_of(load_plugins()))


async def _distribute(dsn: str, shards: int | None, dry_run: bool) -> list[distribution.DistributionStep]:
    async with _opened(dsn) as database:
        if await migrate.pending(database, tables_of(load_plugins())):
            raise ConfigError("database: its schema is not there yet, or old; coordinator db migrate makes it")

        async with database.connection() as connection:
            steps = distribution.plan(await distribution.look(connection), shards)
            if not dry_run:
                await distribution.carry_out(connection, steps)
        return steps


@asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, size=2)
    try:
        await database.open()
        yield database
    finally:
        await database.close()


def _dsn(settings: Settings) -> str:
    found = settings.database
    if found is None:
        with only_where_the_server_runs():
            from coordinator.embedded import running_dsn

        found = running_dsn(settings.data)
    if found is None:
        raise ConfigError(f"database: none is given, and no embedded Postgres runs in {settings.data}")
    return found


def _all_migrations() -> list[migrate.Migration]:
    """List the migrations of this package, and behind them those of the plugins."""
    folders = tables_of(load_plugins())
    of_plugins = [migration for name in sorted(folders) for migration in migrate.in_folder(folders[name], name)]
    return [*migrate.shipped(), *of_plugins]


def _row(migration: migrate.Migration, state: str) -> dict[str, Any]:
    return {"number": migration.number, "name": migration.name, "plugin": migration.plugin, "state": state}
