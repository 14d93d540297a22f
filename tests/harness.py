"""Peers that tests drive a node with: plain WebSocket peers that keep pushes apart from answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from coordinator import credentials
from coordinator.app import Node
from coordinator.store import tokens
from coordinator.store.pool import Database
from coordinator.wire.frames import SUBPROTOCOL
from tests.bounded import within

Message = dict[str, Any]

PATIENCE = 10.0
"""Seconds after which a test gives up on something that should have come at once."""

PLACES = """
SELECT service_id, item_id, 'waiting' AS place FROM waiting_item
UNION ALL SELECT service_id, item_id, 'quarantined' FROM quarantine
UNION ALL SELECT b.service_id, n.item_id, b.state FROM bucket b JOIN bucket_items c USING (bucket_id)
 CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS n (item_id, place)
 WHERE b.state <> 'done' AND get_bit(b.settled, n.place::int - 1) = 0"""
"""Where each item is that is not settled, found by a scan; one with a second copy is there twice."""


def secret_of(client: str) -> str:
    """A secret that is the client's own."""
    return hashlib.sha256(client.encode()).hexdigest()


class Peer:
    """One connection; answers go to their requests by `ref`, everything else to `pushes`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.pushes: asyncio.Queue[Message] = asyncio.Queue()
        self.waits: asyncio.Queue[Message] = asyncio.Queue()
        """Pushes `waiting`, kept apart: they come between others whenever a reason changes."""
        self._answers: dict[Any, asyncio.Future[Message]] = {}
        self._refs = 0
        self._closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, stack: AsyncExitStack, **options: Any) -> Self:
        connection = await connect(url, subprotocols=[SUBPROTOCOL], max_size=None, **options)  # type: ignore[list-item]  # a NewType
        peer = cls(connection)
        stack.push_async_callback(peer.close)
        return peer

    async def _read(self) -> None:
        try:
            async for frame in self.connection:
                message = json.loads(frame)
                waiting = self._answers.pop(message.get("ref"), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
                elif waiting is None and message["type"] == "waiting":
                    self.waits.put_nowait(message)
                elif waiting is None:
                    self.pushes.put_nowait(message)
        except ConnectionClosed:
            pass
        finally:
            self._closed.set_result(self.connection.close_code or 1006)

    def send(self, kind: str, /, **fields: Any) -> asyncio.Future[Message]:
        """Send a request without waiting; the future is its answer."""
        self._refs += 1
        answer = self._answers[self._refs] = asyncio.get_running_loop().create_future()
        self._writer = asyncio.ensure_future(
            self.connection.send(json.dumps({"type": kind, "ref": self._refs, **fields}))
        )
        return answer

    async def ask_for(self, kind: str, /, **fields: Any) -> Message:
        """Send a request and wait for its answer, be it an error."""
        return await within(self.send(kind, **fields), PATIENCE)

    async def ok(self, kind: str, /, **fields: Any) -> Message:
        """Send a request that must not be refused."""
        answer = await self.ask_for(kind, **fields)
        assert answer["type"] != "error", answer
        return answer

    async def refused(self, kind: str, /, **fields: Any) -> str:
        """Send a request that must be refused; returns the code."""
        answer = await self.ask_for(kind, **fields)
        assert answer["type"] == "error", answer
        return str(answer["code"])

    async def push(self, kind: str, patience: float = PATIENCE) -> Message:
        """The next push, which must be of that type."""
        message = await within(self.pushes.get(), patience)
        assert message["type"] == kind, message
        return message

    async def close_code(self, patience: float = PATIENCE) -> int:
        """The code with which the connection ends."""
        return await within(asyncio.shield(self._closed), patience)

    async def close(self) -> None:
        """End with a close frame."""
        await self.connection.close()
        await self._reader

    def cut(self) -> None:
        """End without one: RST."""
        self.connection.transport.abort()


class Volunteer(Peer):
    """A client; `client_id` and `secret` are its identity."""

    client_id: str

    async def hello(self, client_id: str, **more: Any) -> Message:
        self.client_id = client_id
        return await self.ok("hello", protocol=1, client_id=client_id, secret=secret_of(client_id), **more)

    async def bucket(self, service: str = "dm_check") -> Message:
        """Ask for one bucket and wait for it."""
        asked = await self.ok("ask", service=service, count=1)
        assert asked["count"] == 1, asked
        return await self.push("bucket")

    async def submit(
        self, bucket: Message, dm: str = "DM", *, items: Iterable[int] | None = None, final: bool = True
    ) -> Message:
        """Submit the same result for all items of a bucket, or for some; the answer may be an error."""
        return await self.ask_for("submit", **submission(bucket, dm, items=items, final=final))


def submission(bucket: Message, dm: str = "DM", *, items: Iterable[int] | None = None, final: bool = True) -> Message:
    """The fields of a submit of one dm_check result for all items of a bucket, or for some."""
    chosen = [item["item"] for item in bucket["items"]] if items is None else list(items)
    return {
        "bucket_id": bucket["bucket_id"],
        "claim": bucket["claim"],
        "results": [{"item": item, "dm": dm} for item in chosen],
        "final": final,
    }


class Admin(Peer):
    """An admin."""

    async def add(self, count: int, prefix: str = "account", **more: Any) -> Message:
        """Add items named prefix0, prefix1, …"""
        return await self.ok("item.add", items=[{"key": f"{prefix}{n}"} for n in range(count)], **more)


class Viewer(Peer):
    """A dashboard."""

    async def snapshot(self, topic: str) -> Message:
        """The next snapshot of that topic; those of others before it are passed over."""
        while True:
            message = await self.push("snapshot")
            if message["topic"] == topic:
                return message


class Server:
    """A node under test."""

    def __init__(self, node: Node, database: Database, stack: AsyncExitStack) -> None:
        self.node = node
        self.database = database
        self.stack = stack
        self.url = f"ws://127.0.0.1:{node.port}"

    async def client(self, **options: Any) -> Volunteer:
        """A connection that has not said hello."""
        return await Volunteer.open(f"{self.url}/v1/client", self.stack, **options)

    async def volunteer(self, client_id: str, **hello: Any) -> Volunteer:
        """A client that has registered and joined dm_check."""
        peer = await self.client()
        welcome = await peer.hello(client_id, **hello)
        if not welcome["registered"]:
            await peer.ok(
                "register",
                screen_name=client_id,
                services=[{"service": "dm_check", "profile": {"source": client_id}}],
            )
        return peer

    async def token(self, role: str = "admin") -> str:
        """A new token of that role."""
        made = credentials.make_token()
        async with self.database.connection() as db:
            await tokens.issue(db, made.token_id, made.hash, role, f"test {role}", None, None)
        return made.token

    async def command(self, *words: str) -> list[Message]:
        """Run a command of the program as an admin, in a process of its own; returns what it prints with `--json`."""
        beside = "--json", "--server", self.url, "--token", await self.token()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "coordinator", *words, *beside, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, words
        return [json.loads(line) for line in said.splitlines()]

    async def viewer(self, **hello: Any) -> Viewer:
        """A dashboard that has said hello."""
        peer = await Viewer.open(f"{self.url}/v1/stats", self.stack)
        await peer.ok("hello", protocol=1, **hello)
        return peer

    async def admin(self, role: str = "admin") -> Admin:
        """An admin that has said hello."""
        peer = await Admin.open(f"{self.url}/v1/admin", self.stack)
        await peer.ok("hello", protocol=1, token=await self.token(role))
        return peer
