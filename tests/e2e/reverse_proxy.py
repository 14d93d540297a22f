"""A reverse proxy of one origin under a path, with the ways in which such a proxy may be set up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Manners:
    """The changes that a proxy makes to a request, beside taking the path away before which it stands.

    `own_host` names the node's address in `Host`, as nginx does unless it is told otherwise, and `tells_host` the
    browser's in X-Forwarded-Host; `without_upgrade` leaves out the header of that name, as nginx does too.
    """

    path: str = "/work"
    own_host: bool = False
    tells_host: bool = False
    without_upgrade: bool = False

    def rewrite(self, head: bytes, port: int) -> bytes | None:
        """Return the head of a request as the node gets it; None if it is for another path."""
        before, _, rest = head.decode("latin-1").partition(f" {self.path}/")
        if " " in before:
            return None
        text = f"{before} /{rest}".removesuffix("\r\n\r\n")
        lines = text.split("\r\n")
        if self.tells_host:
            lines += [line.replace("Host:", "X-Forwarded-Host:", 1) for line in lines if line.startswith("Host:")]
        if self.own_host:
            lines = [f"Host: 127.0.0.1:{port}" if line.startswith("Host:") else line for line in lines]
        if self.without_upgrade:
            lines = [line for line in lines if not line.startswith("Upgrade:")]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@asynccontextmanager
async def reverse_proxy(port: int, manners: Manners) -> AsyncIterator[str]:
    """Stand before a port of this machine; yields the address of the page there, without the last slash."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = manners.rewrite(await reader.readuntil(b"\r\n\r\n"), port)
            if head is None:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                answers, requests = await asyncio.open_connection("127.0.0.1", port)
                requests.write(head)
                async with asyncio.TaskGroup() as both:
                    there = both.create_task(_copy(reader, requests))
                    await _copy(answers, writer)
                    there.cancel()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{manners.path}"
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
