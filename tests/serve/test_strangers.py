"""Connections that come to do harm before they say hello: they cause no traceback, and take nobody's place."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import perf_counter

import pytest
import uvloop
from websockets.exceptions import InvalidMessage

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.serve import limits
from tests.harness import PATIENCE, Admin, Server, Volunteer
from tests.serve.tools import RawPeer, eventually, works_well

UPGRADE = (
    b"GET /v1/client HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

JUNK = (
    b"\x16\x03\x01\x02\x00",
    b"\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\n\r\n",
    b"A" * 10_000,
    b"GET / HTTP/1.1\r\n: \r\n\r\n",
)


def knock_and_reset(port: int, data: bytes, *, wait: bool) -> None:
    """Send some bytes, wait for an answer or not, and end the connection with a RST."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(1)
        sock.sendall(data)
        if wait:
            sock.recv(100)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_resets_and_junk_cause_no_traceback(dsn: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On uvloop, as in production: it does not know the peer of a connection any more that was reset."""

    async def scenario() -> None:
        async with Node(Settings(port=0, ops_port=0, data=tmp_path), dsn=dsn) as node:
            for number in range(40):
                await asyncio.to_thread(knock_and_reset, node.port, UPGRADE, wait=number % 2 == 0)
            for junk in JUNK:
                await asyncio.to_thread(knock_and_reset, node.port, junk, wait=False)
            assert not node.events.counts["fault"]

    await asyncio.to_thread(on_uvloop, scenario)
    output = capfd.readouterr()
    assert "Traceback" not in output.err + output.out


def on_uvloop(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run something on the event loop of production, whose transports and errors are its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


async def test_a_connection_without_a_place_is_dropped_quietly(
    dsn: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES_OF_A_BLOCK", 2)

    async def scenario() -> None:
        async with Node(Settings(port=0, ops_port=0, data=tmp_path), dsn=dsn) as node:
            opened = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(2)]
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            for _, other in [*opened, (reader, writer)]:
                other.close()

    await asyncio.to_thread(on_uvloop, scenario)
    output = capfd.readouterr()
    assert "Traceback" not in output.err + output.out
    assert "Exception in callback" not in output.err + output.out


async def test_who_only_connects_takes_no_places_from_others(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES_OF_A_BLOCK", 5)
    idle = [await asyncio.open_connection("127.0.0.1", server.node.port) for _ in range(5)]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.node.port)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), PATIENCE)  # it is dropped at once
    writer.close()
    for _, other in idle:
        other.close()

    async def served() -> bool:
        try:
            await server.volunteer("volunteer")
        except (OSError, InvalidMessage):
            return False
        return True

    await eventually(served, "the places come back")


async def test_sessions_take_no_place_among_the_handshakes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES_OF_A_BLOCK", 2)
    for number in range(5):
        await server.volunteer(f"volunteer{number}")


@pytest.mark.parametrize("opcode", [9, 10])
async def test_a_flood_of_control_frames_is_cut_and_nobody_waits(
    server: Server, admin: Admin, volunteer: Volunteer, opcode: int
) -> None:
    """The library answers them by itself, so that no other budget counts them."""
    flood = await RawPeer.open(server)
    await flood.hello("flood", register=False)
    for _ in range(20_000):
        flood.frame(b"", opcode=opcode)
    assert await flood.close_code() == 1006
    begun = perf_counter()
    await works_well(server, admin, volunteer)
    assert perf_counter() - begun < 2


async def test_a_ping_now_and_then_is_answered(server: Server) -> None:
    peer = await RawPeer.open(server)
    await peer.hello("peer", register=False)
    for number in range(30):
        peer.frame(str(number).encode(), opcode=9)
        assert await peer.read() == (10, str(number).encode())
