from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import Backoff, Client
from coordinator.standin import StandIn
from tests.conftest import StartServer
from tests.harness import Admin, Server

from .scripted import ScriptedServer

NewClient = Callable[..., Client]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
def new_client(server: ScriptedServer, tmp_path: Path) -> NewClient:
    """Makes clients of one identity that reconnect quickly."""

    def make(**options: Any) -> Client:
        return Client(server.url, **{"client_id": "ada", "data": tmp_path, "backoff": Backoff(0.01, 0.05), **options})

    return make


@pytest.fixture
async def node(start_server: StartServer) -> Server:
    """A real node with the defaults."""
    return await start_server()


@pytest.fixture
async def admin(node: Server) -> Admin:
    """An admin of that node."""
    return await node.admin()


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    """The outside API, quick and without a limit."""
    async with StandIn(latency=0.002, jitter=0.001, requests=0) as api:
        yield api
