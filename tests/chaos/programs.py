"""Programs of Postgres in another world: with a clock that can be set, or a disk that forgets what was not synced."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from coordinator.embedded.binaries import binary_folders

BINARIES = next(binary_folders(None, None))

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
"""Debian's library that tells a program another time; None where it is not installed."""

Disk = Literal["plain", "forgetful", "lying"]
"""A forgetful disk has, after a power cut, what was synced; one that lies has only some of that."""

SOURCE = Path(__file__).with_name("forgetful_disk.c")

WAL_SEGMENT = 1
"""MiB of a segment of the log on such a disk: each sync of it compares the whole segment."""


def can_fake_time() -> bool:
    """Whether the library is there, and the account of Postgres may run the programs as they lie there."""
    return FAKETIME is not None and all(folder.stat().st_mode & 0o001 for folder in (BINARIES, *BINARIES.parents))


def with_another_clock(folder: Path, clock: Path) -> Path:
    """Make programs that add to the time what the file `clock` says; they look into it each second."""
    return _wrapped(
        folder,
        {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        },
    )


def with_forgetful_disk(folder: Path, live: Path, copy: Path, *, lies: bool) -> Path:
    """Make programs that store in `copy` what they sync of `live`.  Needs a C compiler."""
    library = folder.with_suffix(".so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "FORGETFUL_LIVE": str(live), "FORGETFUL_DISK": str(copy)}
    return _wrapped(folder, environment | ({"FORGETFUL_LIES": "1"} if lies else {}), f"--wal-segsize={WAL_SEGMENT}")


def _wrapped(folder: Path, environment: Mapping[str, str], *words: str) -> Path:
    """Make a folder of programs that run the real ones with that environment; `words` are for initdb."""
    folder.mkdir(mode=0o755)
    variables = " ".join(f"{name}={value}" for name, value in environment.items())
    for name, more in (("initdb", words), ("postgres", ())):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexport {variables}\nexec {BINARIES / name} {" ".join(more)} "$@"\n')
        program.chmod(0o755)
    return folder


def copy_data(data: Path, to: Path) -> None:
    """Copy a folder of data with its owners, in place of whatever is there."""
    shutil.rmtree(to, ignore_errors=True)
    subprocess.run(["cp", "-a", data, to], check=True)
