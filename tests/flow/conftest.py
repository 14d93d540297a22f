"""A node without a clock for each test of the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.databases import Databases
from tests.flow.room import Room, stop_clock

OpenRoom = Callable[..., Awaitable[Room]]


@pytest.fixture
def open_room(start_server: StartServer, database: Database) -> OpenRoom:
    """`await open_room(**settings)`: a service with these settings on a node whose clock stands still."""

    async def open_room(**settings: object) -> Room:
        server = await start_server()
        await stop_clock(server.node)
        return await Room.open(server.node, database, "room", **settings)

    return open_room


@pytest.fixture
def dsn_for_machine(databases: Databases) -> str:
    """A database for a test that runs a loop of its own."""
    return asyncio.run(databases.shared())
