"""Connections that come to do harm before they say hello: they cause no traceback, and take nobody's place."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from time import monotonic, perf_counter

import pytest
import uvloop
from websockets.exceptions import InvalidMessage

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.flow.readiness import LOOKS_APART, Readiness
from coordinator.serve import limits
from coordinator.serve.client_channel import ClientSession
from tests.bounded import within
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

AFTER_THE_HANDSHAKE = tuple(
    UPGRADE.replace(b"/v1/client", channel) + frames
    for channel in (b"/v1/client", b"/v1/stats", b"/v1/admin")
    for frames in (
        b"\x81\x82\x00\x00\x00\x00{}",  # a message of the wrong shape
        b"\x81\x81\x00\x00\x00\x00\xff",  # no UTF-8
        b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # of 2^64 - 1 bytes
        b"\x88\x82\x00\x00\x00\x00\x03\xe8",  # a close
        b"\x88\x82\x00\x00\x00\x00\x00\x00",  # a close with a code that there is not
        b"\x83\x80\x00\x00\x00\x00",  # an unknown opcode
        b"\x01\x82\x00\x00\x00\x00{}",  # a message that does not end
        b"\x81\x02{}",  # without a mask
    )
)


def knock_and_reset(port: int, data: bytes, *, wait: bool) -> None:
    """Send some bytes, wait for an answer or not, and end the connection with a RST."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(1)
        sock.sendall(data)
        if wait:
            with suppress(OSError):
                sock.recv(100)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_resets_and_junk_cause_no_traceback(dsn: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On uvloop, as in production: it does not know the peer of a connection any more that was reset."""

    async def scenario() -> None:
        async with Node(Settings(port=0, ops_port=0, data=tmp_path), dsn=dsn) as node:
            assert node.ops_port is not None
            for port in (node.port, node.ops_port):
                for number in range(40):
                    await asyncio.to_thread(knock_and_reset, port, UPGRADE, wait=number % 2 == 0)
                for junk in (*JUNK, *AFTER_THE_HANDSHAKE):
                    await asyncio.to_thread(knock_and_reset, port, junk, wait=False)
                    await asyncio.to_thread(knock_and_reset, port, junk, wait=True)
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
            assert await within(reader.read(), PATIENCE) == b""
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
        await within(reader.readexactly(1), PATIENCE)  # it is dropped at once
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


async def test_large_frames_that_wait_together_are_read_one_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would make their reader pause: what has arrived is there at once."""
    turns = 0
    read: list[int] = []
    take = ClientSession.take

    async def counted(session: ClientSession, frame: str) -> None:
        read.append(turns)
        await take(session, frame)

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    peer = await RawPeer.open(server)
    await peer.hello("peer")
    monkeypatch.setattr(ClientSession, "take", counted)
    other = asyncio.create_task(others())
    for number in range(10):
        peer.say("nope", ref=number, text="x" * 60_000)
    for _ in range(10):
        assert b"unsupported" in (await peer.read())[1]
    other.cancel()
    assert len(set(read)) == 10


async def test_many_probes_at_once_ask_the_database_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = Readiness._look

    async def counted(readiness: Readiness) -> str | None:
        nonlocal looks
        looks += 1
        return await look(readiness)

    monkeypatch.setattr(Readiness, "_look", counted)
    readiness = server.node.parts.sockets.listener._pages._readiness
    begun = monotonic()
    reports = await asyncio.gather(*(readiness.report() for _ in range(200)))
    assert all(report.ready for report in reports)
    assert looks <= 1 + (monotonic() - begun) / LOOKS_APART
