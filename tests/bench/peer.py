"""A plain WebSocket peer with as little of its own as can be: what it costs is not the server's."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from coordinator.wire.frames import SUBPROTOCOL

Message = dict[str, Any]


class Peer:
    """One connection; `request` is for when nothing else is on its way."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @classmethod
    async def open(cls, url: str, address: str | None = None) -> Peer:
        """Connect, from that address of this machine."""
        more: Any = {} if address is None else {"local_addr": (address, 0)}
        return cls(
            await connect(
                url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=None,
                max_queue=None,
                ping_interval=None,
                open_timeout=30,
                **more,
            )
        )

    async def send(self, kind: str, /, **fields: Any) -> None:
        await self.connection.send(orjson.dumps({"type": kind, **fields}), text=True)

    async def receive(self) -> Message:
        message: Message = orjson.loads(await self.connection.recv(decode=False))
        assert message["type"] != "error", message
        return message

    async def until(self, kind: str) -> Message:
        """The next message of that type; others are left unread."""
        while True:
            message = await self.receive()
            if message["type"] == kind:
                return message

    async def request(self, kind: str, /, **fields: Any) -> Message:
        await self.send(kind, ref=0, **fields)
        while True:
            message = await self.receive()
            if message.get("ref") == 0:
                return message

    async def close(self) -> None:
        await self.connection.close()


async def volunteer(url: str, name: str, address: str | None = None) -> Peer:
    """A session of a client that is registered."""
    peer = await Peer.open(f"{url}/v1/client", address)
    welcome = await peer.request("hello", protocol=1, client_id=name, secret=secret_of(name))
    assert welcome["registered"]
    return peer


def secret_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def submission(bucket: Message) -> Message:
    """The fields of a final submit for all of a bucket."""
    return {
        "bucket_id": bucket["bucket_id"],
        "claim": bucket["claim"],
        "results": [{"item": item["item"], "dm": "DM"} for item in bucket["items"]],
        "final": True,
    }
