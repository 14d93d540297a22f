"""Tools of the tests of the client channel: settings in the database, rough ends of connections, raw frames."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from coordinator.store.pool import Database
from tests.bounded import within
from tests.harness import PATIENCE, Admin, Message, Peer, Server, Volunteer, secret_of, submission

CHOICE = [{"service": "dm_check", "profile": {"source": "somebody"}}]
"""The services that a client chooses when it registers."""

_numbers = itertools.count(1)


async def configure(database: Database, service: str = "dm_check", **settings: object) -> None:
    """Set a service's settings; before a node starts."""
    async with database.connection() as db:
        await db.execute("UPDATE service SET settings = $2 WHERE name = $1", service, json.dumps(settings))


async def add_service(database: Database, name: str, state: str = "active", **settings: object) -> None:
    """Add a service of the plugin dm_check; before a node starts."""
    async with database.connection() as db:
        await db.execute(
            "INSERT INTO service (name, plugin, title, state, settings) VALUES ($1, 'dm_check', $1, $2, $3)",
            name,
            state,
            json.dumps(settings),
        )


async def set_state(server: Server, state: str, service: str = "dm_check") -> None:
    """Pause, resume or revoke a service under a running node."""
    async with server.database.connection() as db:
        await db.execute("UPDATE service SET state = $2 WHERE name = $1", service, state)
    await server.node.parts.sockets.change_listener.reload_services()


async def value(database: Database, query: str, *arguments: object) -> Any:
    """Return one value from the database."""
    async with database.connection() as db:
        return await db.fetchval(query, *arguments)


async def execute(database: Database, query: str, *arguments: object) -> None:
    """Execute one statement."""
    async with database.connection() as db:
        await db.execute(query, *arguments)


async def eventually(good: Callable[[], Awaitable[bool]], what: str, patience: float = PATIENCE) -> None:
    """Wait until a condition holds, by asking again and again; `patience` in seconds."""
    end = asyncio.get_running_loop().time() + patience
    while not await good():
        assert asyncio.get_running_loop().time() < end, what
        await asyncio.sleep(0.02)


async def results(database: Database) -> int:
    """Return the number of stored results."""
    return int(await value(database, "SELECT count(*) FROM result"))


def ids(bucket: Message) -> list[int]:
    """Return the items of a bucket, in its order."""
    return [item["item"] for item in bucket["items"]]


async def works_well(server: Server, admin: Admin, neighbour: Volunteer) -> None:
    """Run a full cycle of a client that must not be affected: add, ask, bucket, submit, stored."""
    await admin.add(2, prefix=f"neighbour{next(_numbers)}_")
    stored = await neighbour.submit(await neighbour.bucket())
    assert (stored["type"], stored["closed"]) == ("stored", True), stored
    assert neighbour.pushes.empty()


async def join_again(server: Server, client_id: str, **hello: Any) -> tuple[Volunteer, Message]:
    """Open a new session of a registered client; returns it and its welcome."""
    peer = await server.client()
    return peer, await peer.hello(client_id, **hello)


async def report(peer: Peer, service: str = "dm_check", **more: Any) -> Message:
    """Return the answer to a `report`, whose field `kind` has the name of a parameter of Peer."""
    answer = peer._answers["report"] = asyncio.get_running_loop().create_future()
    fields = {"type": "report", "ref": "report", "service": service, "kind": "cannot_work", **more}
    await peer.connection.send(json.dumps(fields))
    return await within(answer, PATIENCE)


async def code(peer: Volunteer, bucket: Message, dm: object = "DM", **more: Any) -> str:
    """Return the code with which a submit is refused."""
    fields = submission(bucket, "DM", items=more.get("items"))
    for result in fields["results"]:
        result["dm"] = dm
    return await peer.refused("submit", **{**fields, **more.get("fields", {})})


async def raw(peer: Volunteer, text: str) -> Message:
    """Send text that need not be a message; the next frame without a known ref answers it."""
    await peer.connection.send(text)
    return await within(peer.pushes.get(), 10)


def reset(peer: Peer) -> None:
    """End the connection with a real RST."""
    sock = peer.connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.connection.transport.abort()


def half_close(peer: Peer) -> None:
    """End our half of the connection with a FIN, without a close frame."""
    peer.connection.transport.write_eof()


async def no_push(peer: Peer) -> None:
    """Check that nothing was pushed: all that the server sent before its answer to one more request has arrived."""
    await peer.ok("services")
    assert peer.pushes.empty(), peer.pushes.get_nowait()


class Swallower:
    """A TCP proxy that can stop passing bytes on while it still accepts them, as a lost network does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._silent = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @classmethod
    async def open(cls, server: Server) -> Swallower:
        proxy = cls(server.node.port)
        listener = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"

        async def close() -> None:
            listener.close()
            for task in list(proxy._tasks):
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

        server.stack.push_async_callback(close)
        return proxy

    def swallow(self) -> None:
        """Stop passing bytes on."""
        self._silent = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, to_there), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if not self._silent:
                    sink.write(data)
                    await sink.drain()
            if self._silent:  # not even an end is passed on
                await asyncio.get_running_loop().create_future()
        except OSError:
            pass
        finally:
            sink.close()


class RawPeer:
    """A client that writes its frames by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls,
        server: Server,
        stack: AsyncExitStack | None = None,
        receive_buffer: int = 0,
        path: str = "/v1/client",
    ) -> RawPeer:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.node.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        (stack or server.stack).callback(writer.close)
        writer.write(
            f"GET {path} HTTP/1.1\r\n".encode() + b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = await within(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert b" 101 " in head.split(b"\r\n")[0], head
        return cls(reader, writer)

    def frame(self, payload: bytes, *, opcode: int = 1, final: bool = True, masked: bool = True) -> None:
        """Write one frame."""
        size = len(payload)
        head = bytes([(0x80 if final else 0) | opcode])
        flag = 0x80 if masked else 0
        if size < 126:
            head += bytes([flag | size])
        elif size < 65536:
            head += bytes([flag | 126]) + size.to_bytes(2, "big")
        else:
            head += bytes([flag | 127]) + size.to_bytes(8, "big")
        if masked:
            mask = os.urandom(4)
            head += mask
            payload = _mask(payload, mask)
        self.writer.write(head + payload)

    def say(self, kind: str, **fields: Any) -> None:
        """Write a message."""
        self.frame(json.dumps({"type": kind, **fields}).encode())

    async def read(self) -> tuple[int, bytes]:
        """Return the next frame: opcode and payload."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return first & 0x0F, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """Read until the close frame; returns its code (1006 if the connection ends without one)."""
        try:
            while True:
                opcode, payload = await self.read()
                if opcode == 8:
                    return int.from_bytes(payload[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return 1006

    async def hello(self, client_id: str, *, register: bool = True) -> None:
        """Become a client of dm_check."""
        self.say("hello", protocol=1, client_id=client_id, secret=secret_of(client_id))
        assert json.loads((await self.read())[1])["type"] == "welcome"
        if register:
            choice = {"service": "dm_check", "profile": {"source": client_id}}
            self.say("register", screen_name=client_id, services=[choice])
            assert json.loads((await self.read())[1])["type"] == "registered"


def _mask(payload: bytes, mask: bytes) -> bytes:
    whole = int.from_bytes(payload, "big")
    stream = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (whole ^ int.from_bytes(stream, "big")).to_bytes(len(payload), "big")


class Blocked:
    """Holds back each claim statement of the node until the block ends: `nextval` of the claim numbers waits."""

    def __init__(self, database: Database) -> None:
        self._dsn = database.dsn
        self._database = database

    async def __aenter__(self) -> Blocked:
        self._connection = await asyncpg.connect(self._dsn)
        await self._connection.execute("BEGIN")
        await self._connection.execute("ALTER SEQUENCE claim_number INCREMENT 1")
        return self

    async def until_one_waits(self) -> None:
        """Wait until a claim statement is under way and held back."""

        async def waits() -> bool:
            count = await value(self._database, "SELECT count(*) FROM pg_locks WHERE NOT granted")
            return bool(count)

        await eventually(waits, "no claim came")

    async def __aexit__(self, *_: object) -> None:
        await self._connection.execute("ROLLBACK")
        await self._connection.close()
