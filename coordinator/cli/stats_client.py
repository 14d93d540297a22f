"""The stats channel, from the side of the one who watches.  protocol.md, "Stats channel" """

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from coordinator.cli.admin_client import ServerUnreachable, admin_url, open_channel, why_closed
from coordinator.errors import Refused
from coordinator.wire.codec import encode
from coordinator.wire.frames import PROTOCOL, Request
from coordinator.wire.stats import StatsHello, Subscribe, Topic

STATS_PATH = "/v1/stats"

_STATS_ANSWER_TIMEOUT = 30.0

_frame_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])

StatsFrame = dict[str, Any]


class StatsClient:
    """An open and greeted stats channel; `welcome` is what the server said."""

    def __init__(self, url: str, socket: ClientConnection) -> None:
        self._url = url
        self._socket = socket
        self.welcome: StatsFrame = {}

    async def greet(self, token: str | None) -> None:
        """Say hello; first of all.

        Raises:
            Refused: the server takes no such token, or wants one.
            ServerUnreachable: the connection ended first, or nothing came.
        """
        self.welcome = await self._ask(StatsHello(protocol=PROTOCOL, token=token))

    async def follow(self, topics: Sequence[Topic], interval: float) -> AsyncGenerator[StatsFrame, None]:
        """The snapshots of these topics, as they come, until the connection ends.

        Raises:
            Refused, ServerUnreachable: as `greet`.
        """
        await self._ask(Subscribe(topics=list(topics), interval=interval))
        while True:
            message = await self._next()
            if message["type"] == "snapshot":
                yield message

    async def _ask(self, request: Request) -> StatsFrame:
        """Ask before anything is pushed."""
        try:
            async with asyncio.timeout(_STATS_ANSWER_TIMEOUT):
                await self._socket.send(encode(request), text=True)
                answer = await self._next()
        except ConnectionClosed:
            raise why_closed(self._url, self._socket) from None
        except TimeoutError:
            raise ServerUnreachable(f"{self._url} does not answer.") from None
        if answer["type"] == "error" and answer.get("code") in ("draining", "unavailable"):
            raise ServerUnreachable(f"{self._url}: {answer.get('message')}")
        if answer["type"] == "error":
            raise Refused(
                str(answer.get("code")), str(answer.get("message")), answer.get("detail"), answer.get("retry_after")
            )
        return answer

    async def _next(self) -> StatsFrame:
        try:
            return _frame_decoder.decode(await self._socket.recv())
        except ConnectionClosed:
            raise why_closed(self._url, self._socket) from None
        except msgspec.MsgspecError as failure:
            raise ServerUnreachable(f"{self._url} answers what this program does not understand: {failure}.") from None


@asynccontextmanager
async def stats_connection(server: str, tokens: Sequence[str | None]) -> AsyncIterator[StatsClient]:
    """An open stats channel, with the first of these tokens that the server takes.

    Raises:
        ConfigError: this is no address of a server.
        Refused, ServerUnreachable: as `StatsClient.greet`.
    """
    url = admin_url(server, STATS_PATH)
    for last, token in ((number == len(tokens) - 1, one) for number, one in enumerate(tokens)):
        socket = await open_channel(url)
        try:
            watch = StatsClient(url, socket)
            try:
                await watch.greet(token)
            except Refused:
                if last:
                    raise
                continue
            yield watch
            return
        finally:
            await socket.close()
