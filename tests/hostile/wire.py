"""A WebSocket peer that costs its process next to nothing: frames are made once, and what comes is counted only."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from tests.harness import secret_of


def frame_of(payload: bytes) -> bytes:
    """The text frame of a client; its mask is zero, so that the payload stands there as it is."""
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes([0x80 | size]) + bytes(4) + payload
    if size < 65536:
        return b"\x81\xfe" + size.to_bytes(2, "big") + bytes(4) + payload
    return b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + payload


def message(kind: str, /, **fields: Any) -> bytes:
    """The frame of a message."""
    return frame_of(json.dumps({"type": kind, **fields}).encode())


def upgrade_of(path: str, address: str) -> bytes:
    """The request that opens a channel, as a proxy passes it on for a client of that address."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


class Wire(asyncio.Protocol):
    """One connection; `closed` is done when it has ended."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.taken = 0
        self._heard = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @classmethod
    async def open(cls, port: int, path: str, address: str, *, receive_buffer: int = 0) -> Wire:
        """Connect and ask for a channel; the answer is waited for."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, ("127.0.0.1", port))
            _, wire = await loop.create_connection(cls, sock=sock)
        except OSError:
            sock.close()
            raise
        wire.transport.write(upgrade_of(path, address))
        await wire.heard()
        return wire

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        self._heard.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard.set()
        self._room.set()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    @property
    def open_(self) -> bool:
        """Whether the connection has not ended."""
        return not self.closed.done() and not self.transport.is_closing()

    async def heard(self) -> None:
        """Wait until something has come since the last time, or the connection has ended."""
        await self._heard.wait()
        self._heard.clear()

    async def write(self, data: bytes) -> None:
        """Write, and wait while the server takes nothing."""
        await self._room.wait()
        if self.open_:
            self.transport.write(data)

    async def hello(self, client: str, *, register: bool = True) -> None:
        """Say hello as a client, and register it for dm_check."""
        await self.write(message("hello", protocol=1, client_id=client, secret=secret_of(client)))
        await self.heard()
        if register:
            await self.write(registration(client))
            await self.heard()

    def cut(self) -> None:
        """End at once."""
        self.transport.abort()


def registration(client: str) -> bytes:
    """The frame that registers a client for dm_check."""
    choice = {"service": "dm_check", "profile": {"source": client}}
    return message("register", screen_name=client, services=[choice])
