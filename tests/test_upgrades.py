"""The data folder of the embedded Postgres comes to a newer major version: here from the system's to the wheel's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator import backups, upgrades
from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres
from coordinator.embedded.binaries import major_version, version_of
from coordinator.errors import ConfigError, EmbeddedError
from coordinator.prepare import prepared_database
from coordinator.services import load_plugins, tables_of
from coordinator.store import migrate
from coordinator.store.pool import Database
from tests.needed import leave_out
from tests.serve.tools import execute, value

OLDER = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="coordinator-upgrade-", dir="/tmp"))
    made.chmod(0o755)
    yield made / "data"
    shutil.rmtree(made)


@pytest.mark.long
async def test_from_an_older_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is there afterwards, and whatever interrupts it, the former data are."""
    if version_of(OLDER) is None:
        leave_out(f"this test needs the Postgres in {OLDER}")
    older = EmbeddedPostgres(root, bindir=OLDER)
    older.start()
    database = Database(older.dsn)
    await database.open()
    await migrate.migrate(database, tables_of(load_plugins()))
    await execute(database, "INSERT INTO item (key) SELECT 'k' || n FROM generate_series(1, 5000) n")
    await database.close()
    older.stop()
    settings, backup = Settings(data=root), root.parent / "before.dump"

    def exchanged_half(path: Path, target: Path) -> Any:
        if path.parent.name == upgrades.UNFINISHED:
            raise OSError("the power is cut")
        return real(path, target)

    real = Path.rename
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", exchanged_half)
        with pytest.raises(OSError, match="the power"):
            await upgrades.upgrade(settings, backup, OLDER)
    with pytest.raises(EmbeddedError, match="an upgrade was interrupted"):
        EmbeddedPostgres(root).start()

    done = await upgrades.upgrade(settings, backup, OLDER)
    assert done is not None
    assert (done.before, done.kept.name) == (15, "data.15")
    assert done.after > 15
    assert major_version(version_of(OLDER)) == int((root / "data.15" / "PG_VERSION").read_text())
    assert backup.stat().st_size > 10_000
    assert not (root / upgrades.UNFINISHED).exists()
    assert await upgrades.upgrade(settings, backup, None) is None

    async with prepared_database(settings) as prepared:
        database = Database(prepared.dsn)
        await database.open()
        assert await value(database, "SELECT count(*) FROM item") == 5000
        assert await value(database, "SHOW server_version_num") >= "160000"
        await database.close()


async def test_nothing_is_touched_without_data(root: Path) -> None:
    with pytest.raises(ConfigError, match="has no data"):
        await upgrades.upgrade(Settings(data=root), root.parent / "x.dump", None)
    with pytest.raises(ConfigError, match="there is no embedded one"):
        await backups.back_up(Settings(data=root), root.parent / "x.dump")
