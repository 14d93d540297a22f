"""A client of the stats channel.  protocol.md, "Stats channel" """

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from coordinator.cli.admin_client import admin_url, open_channel, why_closed
from coordinator.errors import Refused, ServerUnreachable
from coordinator.wire.codec import encode
from coordinator.wire.frames import PROTOCOL, Request
from coordinator.wire.stats import StatsHello, Subscribe, Topic

STATS_PATH = "/v1/stats"

_STATS_ANSWER_TIMEOUT = 30.0
"""Seconds."""

_frame_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])

StatsFrame = dict[str, Any]


class StatsClient:
    """An open stats channel, made by `stats_connection`; `welcome` is the server's answer to hello."""

    def __init__(self, url: str, socket: ClientConnection) -> None:
        self._url = url
        self._socket = socket
        self.welcome: StatsFrame = {}

    async def greet(self, token: str | None) -> None:
        """Say hello; must be the first request.

        Raises:
            Refused: the server does not accept the token, or wants one.
            ServerUnreachable: the connection ended first, or no answer came.
        """
        self.welcome = await self._ask(StatsHello(protocol=PROTOCOL, token=token))

    async def follow(self, topics: Sequence[Topic], interval: float) -> AsyncGenerator[StatsFrame, None]:
        """Yield the snapshots of these topics, as they come, until the connection ends.

        Raises:
            Refused, ServerUnreachable: as `greet`.
        """
        await self._ask(Subscribe(topics=list(topics), interval=interval))
        while True:
            message = await self._next()
            if message["type"] == "snapshot":
                yield message

    async def _ask(self, request: Request) -> StatsFrame:
        """Make a request; only before the first snapshot, since the next frame is taken as its answer."""
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
async def stats_connection(
    server: str, tokens: Sequence[str | None], authority: Path | None = None
) -> AsyncIterator[StatsClient]:
    """Open a stats channel with the first of these tokens that the server accepts; `authority` as in `open_channel`.

    Raises:
        ConfigError: the text is not the address of a server, or the authority's file or the proxy cannot be used.
        Refused, ServerUnreachable: as `StatsClient.greet`.
    """
    url = admin_url(server, STATS_PATH)
    for number, token in enumerate(tokens, start=1):
        socket = await open_channel(url, authority)
        try:
            client = StatsClient(url, socket)
            try:
                await client.greet(token)
            except Refused:
                if number == len(tokens):
                    raise
                continue

            yield client
            return
        finally:
            await socket.close()
