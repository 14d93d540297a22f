"""`coordinator backup`, `coordinator restore`, `coordinator db fence` and `coordinator db upgrade`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.access import AsJson, without_none
from coordinator.cli.database import ConfigFile, DataDir, Dsn
from coordinator.cli.exits import only_where_the_server_runs, with_exit_codes
from coordinator.cli.output import write_json
from coordinator.config import Settings
from coordinator.store.fence import Fence
from coordinator.wording import counted

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)]


@with_exit_codes
def backup(
    file: BackupFile, database: Dsn = None, data: DataDir = None, config: ConfigFile = None, json: AsJson = False
) -> None:
    """Write the whole database, as it is at one moment, into a new file; the server goes on meanwhile.

    Example: `coordinator backup coordinator-monday.dump --data ./data`
    """
    with only_where_the_server_runs():
        from coordinator import backups

    size = asyncio.run(backups.back_up(_settings(database, data, config), file))
    if json:
        write_json({"file": str(file), "bytes": size})
    else:
        typer.echo(f"{file}: {size:,} bytes", err=True)


@with_exit_codes
def restore(
    file: BackupFile, database: Dsn = None, data: DataDir = None, config: ConfigFile = None, json: AsJson = False
) -> None:
    """Load a backup into a new data folder or an empty database; claims of before are refused from then on.

    A role of its own for the nodes needs its rights again, as deploy/README.md has them.

    Example: `coordinator restore coordinator-monday.dump --data ./data-new`
    """
    with only_where_the_server_runs():
        from coordinator import backups

    done = asyncio.run(backups.restore(_settings(database, data, config), file))
    if json:
        write_json({"file": str(file), "migrated": done.migrated, **_fields(done.fence)})
    else:
        typer.echo(f"{file} is loaded, {done.migrated} migrations were applied to it.", err=True)
        _tell(done.fence)


@with_exit_codes
def fence(database: Dsn = None, data: DataDir = None, config: ConfigFile = None, json: AsJson = False) -> None:
    """End every claim handed out so far, and number the next ones beyond all; nodes that run end by it.

    For a database that lost its last moments without `coordinator restore`: by a failover to a standby that lagged
    behind, or by the tools of Postgres.

    Example: `coordinator db fence --database postgresql://coordinator@db.example.org/coordinator`
    """
    raised = asyncio.run(_raise_fence(_settings(database, data, config)))
    if json:
        write_json(_fields(raised))
    else:
        _tell(raised)


@with_exit_codes
def upgrade(
    backup: Annotated[Path, typer.Option(metavar="FILE", help="Where the backup goes that is made first.")],
    binaries: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the postgres of the data's version.")
    ] = None,
    data: DataDir = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Bring the data folder of the embedded Postgres to the major version that comes with this program.

    The server has to be stopped. It takes room for the data twice and the backup; the former data are kept.

    Example: `coordinator db upgrade --backup before-upgrade.dump --data ./data`
    """
    with only_where_the_server_runs():
        from coordinator import upgrades

    settings = Settings(config=config, database=None, **without_none(data=data))
    done = asyncio.run(upgrades.upgrade(settings, backup, binaries))
    if json:
        write_json({} if done is None else {"before": done.before, "after": done.after, "kept": str(done.kept)})
    elif done is None:
        typer.echo("Nothing to do: the data are of this program's version of Postgres.", err=True)
    else:
        typer.echo(f"Postgres {done.before} became {done.after}; delete {done.kept} once all is well.", err=True)


async def _raise_fence(settings: Settings) -> Fence:
    with only_where_the_server_runs():
        from coordinator import backups

    async with backups.existing_database(settings) as database:
        return await backups.raise_fence(database)


def _settings(database: str | None, data: Path | None, config: Path | None) -> Settings:
    return Settings(config=config, **without_none(database=database, data=data))


def _fields(fence: Fence) -> dict[str, int]:
    return {"freed": fence.freed, "claims_from": fence.claims_from}


def _tell(fence: Fence) -> None:
    typer.echo(
        f"{counted(fence.freed, 'bucket')} free again; claims are numbered from {fence.claims_from} on.", err=True
    )
