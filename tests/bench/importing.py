"""`coordinator item import` of files made for it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter

from tests.bench.world import World


@contextmanager
def file_of_keys(items: int, prefix: str) -> Iterator[Path]:
    """A CSV file of so many keys in no order, gone at the end."""
    handle, name = tempfile.mkstemp(suffix=".csv")
    with os.fdopen(handle, "w") as file:
        file.write("key\n")
        file.writelines(f"{prefix}{n * 7919 % items:08}\n" for n in range(items))
    try:
        yield Path(name)
    finally:
        Path(name).unlink()


@asynccontextmanager
async def importing(world: World, file: Path, service: str = "dm_check") -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that imports a file; ended at the end."""
    words = ("item", "import", str(file), "--server", world.url, "--service", service, "--json")
    importer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coordinator", *words, stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "COORDINATOR_TOKEN": world.token},
    )  # fmt: skip
    try:
        yield importer
    finally:
        if importer.returncode is None:
            importer.kill()
            await importer.wait()


async def import_file(world: World, file: Path) -> tuple[float, float]:
    """Import a file; returns seconds, and CPU seconds of the importer."""
    before = os.times()
    begun = perf_counter()
    async with importing(world, file) as importer:
        assert await importer.wait() == 0
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return perf_counter() - begun, spent
