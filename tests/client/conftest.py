from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import Backoff, Client

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
