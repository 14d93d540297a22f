"""A TCP proxy that breaks what goes through it: connections are cut, stand still, lose all that is sent, are late."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

Target = Path | int
"""The socket of a server on this machine, or its port."""

Direction = Literal["up", "down"]
"""From whoever connected to the target, or back."""

BUFFER = 65_536


class _Connection:
    """Two sockets and what goes between them."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._ends = near, far
        self.swallows: set[Direction] = set()
        self.was_reset = asyncio.Event()

    def reset(self) -> None:
        """End both sides without a farewell: RST."""
        self.was_reset.set()
        for end in self._ends:
            _linger_no_longer(end)
            end.transport.abort()

    def close(self) -> None:
        for end in self._ends:
            end.close()


class Proxy:
    """Leads one port to a target that may change; `target` returns None while nothing is there.

    `delay` is in seconds, for each piece in each direction.
    """

    def __init__(self, target: Callable[[], Target | None]) -> None:
        self._target = target
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self.delay = 0.0
        self.heal()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # what was closed is closed in the next round of the loop
        await asyncio.sleep(0)

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    # Faults

    def cut(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.reset()

    def stall(self, *directions: Direction) -> None:
        """Let nothing through, and read nothing, until `heal`."""
        for direction in directions:
            self._flows[direction].clear()

    def swallow(self, *directions: Direction) -> None:
        """Lose all that is sent on the connections that there are, and their ends: each side believes in the other."""
        for connection in self._connections:
            connection.swallows.update(directions)

    def heal(self) -> None:
        """Let everything through again; what was swallowed stays lost, and so do those connections."""
        self.delay = 0.0
        for flow in self._flows.values():
            flow.set()

    # Passing on

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            task.uncancel()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await _connect(self._target())
        except OSError:
            _linger_no_longer(writer)
            writer.transport.abort()
            return

        connection = _Connection(writer, far_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(connection, "up", reader, far_writer))
                group.create_task(self._pass_on(connection, "down", far_reader, writer))
            if connection.swallows:
                await connection.was_reset.wait()  # nobody is told that the other side has ended
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _pass_on(
        self, connection: _Connection, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(BUFFER):
                await self._flows[direction].wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if writer.is_closing():
                    return
                if direction not in connection.swallows:
                    writer.write(data)
                    await writer.drain()
        if direction not in connection.swallows and not writer.is_closing():
            with contextlib.suppress(OSError):
                writer.write_eof()


async def _connect(target: Target | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target is None:
        raise ConnectionRefusedError
    if isinstance(target, Path):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection("127.0.0.1", target)


def _linger_no_longer(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and found.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
