"""Any sequence of messages and bytes, on each channel: no fault, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from itertools import count

import pytest
from hypothesis import strategies as st

from coordinator.store.pool import Database
from coordinator.wire import admin as admin_wire
from coordinator.wire import client as wire
from coordinator.wire import stats as stats_wire
from tests.conftest import StartServer
from tests.fuzz.frames import frames
from tests.fuzz.watch import AT_RANDOM_MEANWHILE, PATIENCE, each, nothing_goes_wrong
from tests.harness import Message, Server, submission
from tests.serve.tools import RawPeer, configure

pytestmark = AT_RANDOM_MEANWHILE

NUMBERS = count()

WORK = ("ask", "submit", "part", "release", "again", "repeat", "stranger")
"""Steps that do real work beside the frames; `repeat` sends the last step's frame again, `again` joins again."""

LIMIT = 30
"""Frames that a session reads between two steps, at most."""

DESTRUCTIVE = {"node.drain", "client.forget_secret", "token.revoke"}
"""Requests of admins after which the node, or the other fuzzed peers, would not go on."""


@pytest.fixture
async def busy(start_server: StartServer, database: Database) -> Server:
    """A node with work in small buckets."""
    await configure(database, bucket_size=2, newcomer_buckets=5)
    # A busy machine takes its time over a hello, too.
    server = await start_server(registrations_per_minute=1_000_000, hello_timeout=PATIENCE)
    await (await server.admin()).add(200)
    return server


class Worker:
    """A raw peer that remembers its buckets."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer
        self._buckets: list[Message] = []
        self._last: bytes = b"{}"

    async def do(self, step: str | bytes) -> None:
        """Send what a step says, and read what has come."""
        frame = step if isinstance(step, bytes) else self._frame_of(step)
        if frame is not None:
            self._last = frame
            self._peer.frame(frame)
            await self._peer.writer.drain()
        await self._read()

    def _frame_of(self, step: str) -> bytes | None:
        bucket = self._buckets[-1] if self._buckets else None
        match step:
            case "ask":
                fields: Message = {"type": "ask", "service": "dm_check", "count": 2}
            case "again":
                fields = {"type": "join", "service": "dm_check", "profile": {"source": "fuzz"}}
            case "repeat":
                return self._last
            case _ if bucket is None:
                return None
            case "submit":
                fields = {"type": "submit", **submission(bucket)}
                self._buckets.pop()
            case "part":
                fields = {"type": "submit", **submission(bucket, items=[bucket["items"][0]["item"]], final=False)}
            case "stranger":
                fields = {"type": "submit", **submission(bucket, items=[10**9])}
            case _:
                fields = {"type": "release", "bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}
        return json.dumps(fields).encode()

    async def _read(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.004):
                for _ in range(LIMIT):
                    opcode, payload = await self._peer.read()
                    if opcode == 1 and (message := json.loads(payload))["type"] == "bucket":
                        self._buckets.append(message)


async def run_session(server: Server, worker: bool, steps: list[str | bytes]) -> None:
    """One session of a client, from its handshake until it is cut."""
    async with AsyncExitStack() as stack:
        peer = await RawPeer.open(server, stack)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            if worker:
                await peer.hello(f"fuzz{next(NUMBERS)}")
            client = Worker(peer)
            for step in steps:
                await client.do(step)
        peer.writer.transport.abort()


async def test_sessions_of_clients(busy: Server, capfd: pytest.CaptureFixture[str]) -> None:
    step = st.sampled_from(WORK) | frames(list(wire.ANSWERS))
    async with nothing_goes_wrong(busy, capfd):
        await each(
            st.tuples(st.booleans(), st.lists(step, max_size=12)), lambda drawn: run_session(busy, drawn[0], drawn[1])
        )


async def test_sessions_of_viewers_and_admins(busy: Server, capfd: pytest.CaptureFixture[str]) -> None:
    token = await busy.token()
    harmless = [kind for kind in admin_wire.ANSWERS if str(kind.__struct_config__.tag) not in DESTRUCTIVE]
    channels = {"/v1/stats": frames(list(stats_wire.ANSWERS)), "/v1/admin": frames(harmless)}

    async def run(drawn: tuple[str, list[bytes]]) -> None:
        path, sent = drawn
        async with AsyncExitStack() as stack:
            peer = await RawPeer.open(busy, stack, path=path)
            with suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                peer.say("hello", protocol=1, token=token)
                await peer.read()
                for frame in sent:
                    peer.frame(frame)
                    await peer.writer.drain()
                async with asyncio.timeout(0.02):
                    while True:
                        await peer.read()
            peer.writer.transport.abort()

    async with nothing_goes_wrong(busy, capfd):
        for path, sent in channels.items():
            await each(st.tuples(st.just(path), st.lists(sent, max_size=6)), run)


LINES = st.sampled_from(
    [
        b"GET /v1/client HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n",
        b"GET /readyz HTTP/1.1\r\n",
        b"POST /v1/client HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Protocol: coordinator.v1\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X-Forwarded-For: \xff, 1.2.3\r\n",
        b"\r\n",
        b"\x81\x85\x00\x00\x00\x00hello",
        b"\x88\x80\x00\x00\x00\x00",
        b"\x16\x03\x01",
    ]
)


async def test_the_edge_of_http(busy: Server, capfd: pytest.CaptureFixture[str]) -> None:
    async def run(parts: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", busy.node.port)
        with suppress(ConnectionError, TimeoutError):
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(0.01):
                await reader.read(65536)
        writer.transport.abort()

    async with nothing_goes_wrong(busy, capfd):
        await each(st.lists(LINES | st.binary(max_size=30), max_size=10), run)
