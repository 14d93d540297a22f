"""A real WebSocket server that follows the script of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from coordinator.client import BucketStream, HeldBucket

LIMITS = {
    "max_message_bytes": 1 << 20,
    "max_buckets_per_ask": 10,
    "max_held_buckets": 20,
    "messages_per_minute": 60_000,
    "registrations_per_minute": 600,
    "connections_per_address": 1000,
    "max_sessions": 20_000,
    "hello_timeout": 5,
    "ping_interval": 20,
    "ping_timeout": 20,
}
SERVICE = {"service": "dm_check", "state": "active", "joined": True, "active": True}

Message = dict[str, Any]


class Peer:
    """A connection as the server has it; its `hello` is read and not answered yet."""

    def __init__(self, socket: ServerConnection, hello: Message) -> None:
        self.socket = socket
        self.hello = hello
        self.done = asyncio.Event()
        self.said: list[Message] = []
        self._auto = False

    def carry_on(self) -> None:
        """Answer every request without the test, granting nothing; `said` has the requests."""
        self._auto = True
        self.done.set()

    async def serve(self) -> None:
        """Keep the connection open, and answer once the test says `carry_on`; runs as the connection's task."""
        await self.done.wait()
        with contextlib.suppress(ConnectionClosed):
            while self._auto:
                message = await self.read("ask", "submit", "release", "report")
                self.said.append(message)

                match message["type"]:
                    case "ask":
                        await self.asked(message)
                    case "submit":
                        await self.stored(message)
                    case "release":
                        await self.answer(message, "released", bucket_id=message["bucket_id"], remaining=0)
                    case "report":
                        await self.answer(message, "reported", service=message["service"], retry_after=1)

    async def read(self, *types: str) -> Message:
        """Read the next message, which must be of one of these types."""
        message: Message = json.loads(await self.socket.recv())
        assert message["type"] in types, message
        return message

    async def say(self, type_: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type_, **fields}))

    async def answer(self, request: Message, type_: str, **fields: Any) -> None:
        await self.say(type_, ref=request["ref"], **fields)

    async def refuse(self, request: Message, code: str, **fields: Any) -> None:
        await self.answer(request, "error", code=code, message=f"It is {code}.", **fields)

    async def welcome(self, *, registered: bool = True, **fields: Any) -> None:
        await self.answer(
            self.hello,
            "welcome",
            session_id="s",
            server={"name": "coordinator", "version": "0", "node": "n"},
            protocol=1,
            registered=registered,
            services=[SERVICE],
            stats={},
            **{"limits": LIMITS, **fields},
        )

    async def asked(self, request: Message, pending: int | None = None) -> None:
        count = request["count"]
        left = count if pending is None else pending
        await self.answer(request, "asked", service=request["service"], count=count, pending=left, limit=10)

    async def read_past_asks(self, *kinds: str) -> Message:
        """Answer the asks that come first, and return the next message, which has to be of these kinds."""
        while (message := await self.read("ask", *kinds))["type"] == "ask":
            await self.asked(message)
        return message

    async def bucket(self, name: str, claim: int, *items: int, service: str = "dm_check") -> None:
        await self.say(
            "bucket",
            service=service,
            bucket_id=name,
            claim=claim,
            items=[{"item": one, "key": f"key{one}"} for one in items],
            attempt=1,
            dead_after=7200,
            release_after=900,
            new_field="ignored",
        )

    async def stored(self, submit: Message, **fields: Any) -> None:
        answer = {
            "bucket_id": submit["bucket_id"],
            "stored": len(submit["results"]),
            "discarded": 0,
            "remaining": 0,
            "closed": submit["final"],
            "duplicate": False,
            **fields,
        }
        await self.answer(submit, "stored", **answer)

    async def cut(self) -> None:
        """Abort the connection without a close."""
        self.socket.transport.abort()
        await self.socket.wait_closed()
        self.done.set()

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)
        self.done.set()


class ScriptedServer:
    """The server, inside `async with`.  `refusals` are the HTTP answers to the next handshakes."""

    def __init__(self) -> None:
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.handshakes = 0
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._open: list[Peer] = []
        self._server: Server

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._admit,
            subprotocols=["coordinator.v1"],  # type: ignore[list-item]
            close_timeout=1,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in self._open:
            peer.done.set()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def peer(self) -> Peer:
        """Wait for the next connection."""
        async with asyncio.timeout(20):
            return await self._peers.get()

    async def work(self, *, holds: list[Message] | None = None, **fields: Any) -> Peer:
        """Wait for the next connection, whose hello must name these holds, and welcome it."""
        peer = await self.peer()
        assert peer.hello.get("holds") == holds
        await peer.welcome(**fields)
        return peer

    def _admit(self, _socket: ServerConnection, request: Request) -> Response | None:
        assert request.path == "/v1/client"
        self.handshakes += 1
        if not self.refusals:
            return None
        status, headers = self.refusals.pop(0)
        response = _socket.respond(HTTPStatus(status), "no\n")
        response.headers.update(headers)
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.subprotocol == "coordinator.v1"
        try:
            hello = json.loads(await socket.recv())
        except ConnectionClosed:
            return
        assert hello["type"] == "hello"
        peer = Peer(socket, hello)
        self._open.append(peer)
        self._peers.put_nowait(peer)
        await peer.serve()


async def grant_bucket(peer: Peer, stream: BucketStream, name: str, claim: int, *items: int) -> HeldBucket:
    """Answer the client's ask with one bucket, and take it from the stream."""
    await peer.asked(await peer.read("ask"))
    await peer.bucket(name, claim, *items)
    return await anext(stream)


async def alongside(request: Awaitable[Any], script: Awaitable[Any]) -> Any:
    """Return the result of a request while the server's side of it runs."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(script))
        return await request


async def _run(script: Awaitable[Any]) -> None:
    await script
