"""A volunteer's client goes on, whatever a server sends: it connects again, and is served by one that is right."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed

from coordinator.client import Backoff, Client
from coordinator.wire import client as wire
from coordinator.wire.frames import Error
from tests.client.scripted import ScriptedServer
from tests.fuzz.frames import frames
from tests.fuzz.watch import AT_RANDOM_MEANWHILE, each
from tests.wire.strategies import messages

pytestmark = AT_RANDOM_MEANWHILE


def soon(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Messages of a type that tells the client to wait, for a short time: it does as it is told."""
    return messages(kind).map(lambda message: replace(message, retry_after=0.01))


SOON: dict[type[msgspec.Struct], st.SearchStrategy[Any]] = {kind: soon(kind) for kind in (Error, wire.Drain)}
FROM_SERVER: list[type[msgspec.Struct]] = [Error, *wire.ANSWERS.values(), *wire.PUSHES]


def with_ref(frame: bytes, ref: int) -> bytes:
    """The same frame as an answer to a request, if it is a message."""
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        return frame
    return json.dumps({**message, "ref": ref}).encode() if isinstance(message, dict) else frame


async def test_a_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    async def run(sent: list[tuple[bytes, int | None]]) -> None:
        async with (
            ScriptedServer() as server,
            Client(server.url, client_id="fuzz", data=tmp_path, backoff=Backoff(0.001, 0.002)) as client,
        ):
            client.buckets("dm_check")
            peer = await server.peer()
            await peer.welcome()
            with suppress(ConnectionClosed):
                await peer.read("ask")
                for frame, ref in sent:
                    await peer.socket.send(frame if ref is None else with_ref(frame, ref), text=True)
            await peer.cut()

            again = await server.peer()
            await again.welcome()
            asked = asyncio.create_task(client.services())
            while (request := json.loads(await again.socket.recv()))["type"] != "services":
                pass
            await again.answer(request, "services", services=[])
            assert await asked == []
            again.done.set()

    before = len(asyncio.all_tasks())
    await each(st.lists(st.tuples(frames(FROM_SERVER, SOON), st.none() | st.integers(0, 3)), max_size=6), run)
    assert len(asyncio.all_tasks()) <= before
    assert not [line for line in caplog.messages if not line.startswith("the operator")]  # what it says, at its level
