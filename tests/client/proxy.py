"""Small proxies on this machine that lead every name to one port of it, and remember what they were asked for."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class HttpProxy:
    """An HTTP proxy: CONNECT, and GET with a whole URL; with `refusal` it answers all with that status.

    `asked` has the host and port of each connection, `logins` its Proxy-Authorization.
    """

    scheme = "http"

    def __init__(self, target: int, refusal: str | None = None) -> None:
        self.asked: list[str] = []
        self.logins: list[str | None] = []
        self._target = target
        self._refusal = refusal
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError):
            pass
        except asyncio.CancelledError:
            task.uncancel()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.logins.append(headers.get("proxy-authorization"))

        if self._refusal is not None:
            writer.write(f"HTTP/1.1 {self._refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        if method == "CONNECT":
            self.asked.append(target)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await self._pass_on(reader, writer, b"")
        else:
            place = target.removeprefix("http://")
            self.asked.append(place.partition("/")[0])
            path = "/" + place.partition("/")[2]
            await self._pass_on(reader, writer, head.replace(target, path, 1).encode())

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begin: bytes) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        back.write(begin)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, back))
                group.create_task(_copy(there, writer))
        finally:
            back.close()


class SocksProxy(HttpProxy):
    """A SOCKS5 proxy without login; names are looked up by it."""

    scheme = "socks5h"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")

        _, _, _, kind = await reader.readexactly(4)
        assert kind == 3, "a name"
        (length,) = await reader.readexactly(1)
        name = (await reader.readexactly(length)).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{name}:{port}")
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await self._pass_on(reader, writer, b"")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
