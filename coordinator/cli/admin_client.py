"""A client of the admin channel.  protocol.md, "Admin channel" """

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import structs
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from coordinator import __version__
from coordinator.client.address import (
    CLIENT_PATH,
    DirectConnect,
    authority_hint,
    client_url,
    is_loopback,
    reason_in,
    trust_for,
)
from coordinator.client.causes import cause_by_way
from coordinator.client.proxies import proxy_for
from coordinator.errors import ConfigError, CoordinatorError, Refused, ServerUnreachable
from coordinator.wire.admin import AdminHello
from coordinator.wire.codec import encode
from coordinator.wire.frames import PROTOCOL, SUBPROTOCOL, Close, Request

ADMIN_PATH = "/v1/admin"
LIST_ROWS_PER_PAGE = 1000
"""Rows of one page of a list when all rows are wanted."""

_CHANNEL_OPEN_TIMEOUT = 10.0
"""Seconds."""

_ADMIN_ANSWER_TIMEOUT = 300.0
"""Seconds; the server's own deadline for each statement ends long before."""

_MAX_ADMIN_FRAME_BYTES = 256 << 20
"""A page may be larger than any message that the server takes; the server is trusted."""

_fields_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_raw_fields_decoder: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

_CLOSE_ERRORS = {
    Close.BAD_CREDENTIALS: ("unauthorized", "The server does not know this token."),
    Close.FORBIDDEN: ("forbidden", "This token, or this address, may not use the admin channel."),
    Close.DEACTIVATED: ("forbidden", "The token has been revoked."),
    Close.VERSION: ("unsupported", f"The server does not speak version {PROTOCOL} of the protocol."),
    Close.TOO_MANY: ("rate_limited", "Too many requests; the server has closed the connection."),
    Close.TOO_BIG: ("bad_message", "The server takes no message of that size."),
}


def admin_url(text: str, path: str = ADMIN_PATH) -> str:
    """Return the URL of a server's admin channel, or of the channel at `path`; takes every form that `client_url` does.

    Raises:
        ConfigError: the text is not the address of a server.
    """
    base = text.rstrip("/").removesuffix(path)
    return client_url(base).removesuffix(CLIENT_PATH) + path


class AdminClient:
    """An open admin channel; made by `admin_connection`."""

    def __init__(self, url: str, socket: ClientConnection) -> None:
        self.role = ""
        self._url = url
        self._socket = socket
        self._refs = itertools.count(1)
        self._waiting: dict[object, asyncio.Future[dict[str, Any]]] = {}
        self._as_raw: set[object] = set()
        self._ended: CoordinatorError | None = None

    async def post(self, message: Request, *, raw: bool = False) -> asyncio.Future[dict[str, Any]]:
        """Send a request and return the future of its answer, so that several may be under way.

        With `raw`, the rows of the answer are msgspec.Raw, for callers that only pass them on.  The future
        raises Refused or ServerUnreachable.
        """
        ref = next(self._refs)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # A caller that gives up early never reads its answer: asyncio must not log the exception in it.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._ended is not None:
            answer.set_exception(self._ended)
            return answer

        self._waiting[ref] = answer
        if raw:
            self._as_raw.add(ref)
        with suppress(ConnectionClosed):  # the reader tells why, also to this answer
            await self._socket.send(encode(structs.replace(message, ref=ref)), text=True)
        return answer

    async def request(self, message: Request, *, raw: bool = False) -> dict[str, Any]:
        """Send a request and return the fields of its answer; `raw` as in `post`.

        Raises:
            Refused: the server answered with an error.
            ServerUnreachable: the connection ended first, or nothing came for minutes.
        """
        try:
            async with asyncio.timeout(_ADMIN_ANSWER_TIMEOUT):
                return await (await self.post(message, raw=raw))
        except TimeoutError:
            raise ServerUnreachable(f"{self._url} does not answer.") from None

    async def pages(self, message: Request) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the rows of a list, page by page until the last.

        Raises:
            Refused, ServerUnreachable: as `request`.
        """
        after = getattr(message, "after", None)
        while True:
            answer = await self.request(structs.replace(message, limit=LIST_ROWS_PER_PAGE, after=after))
            yield answer["rows"]
            after = answer["next"]
            if after is None:
                return

    async def greet(self, token: str) -> None:
        """Say hello; must be the first request."""
        hello = AdminHello(protocol=PROTOCOL, token=token)
        self.role = str((await self.request(hello)).get("role", ""))

    async def read(self) -> None:
        """Hand answers to their requests until the connection ends; runs beside them."""
        try:
            async for frame in self._socket:
                self._handle_frame(frame)
        except ConnectionClosed:
            pass
        except msgspec.MsgspecError as failure:
            self._end(ServerUnreachable(f"{self._url} answers what this program does not understand: {failure}."))
            return
        self._end(self._why_closed())

    def _handle_frame(self, frame: str | bytes) -> None:
        fields = self._fields(frame)
        kind, ref = fields.pop("type", None), fields.pop("ref", None)

        if kind == "error":
            refusal = Refused(
                str(fields.get("code")),
                str(fields.get("message")),
                fields.get("detail"),
                fields.get("retry_after"),
            )
            if (answer := self._waiting.pop(ref, None)) is not None:
                if not answer.done():
                    answer.set_exception(refusal)
            elif self._ended is None:
                self._ended = refusal  # not about a request: it is the reason of the close that follows
        elif (answer := self._waiting.pop(ref, None)) is not None and not answer.done():
            answer.set_result(fields)

    def _fields(self, frame: str | bytes) -> dict[str, Any]:
        if not self._as_raw:
            return _fields_decoder.decode(frame)
        fields = _raw_fields_decoder.decode(frame)
        if "ref" not in fields or (ref := _value_decoder.decode(fields["ref"])) not in self._as_raw:
            return _fields_decoder.decode(frame)
        self._as_raw.discard(ref)
        return {name: value if name == "rows" else _value_decoder.decode(value) for name, value in fields.items()}

    def _why_closed(self) -> CoordinatorError:
        if self._ended is not None:
            return self._ended
        return why_closed(self._url, self._socket)

    def _end(self, why: CoordinatorError) -> None:
        self._ended = why
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(why)
        self._waiting.clear()


def why_closed(url: str, socket: ClientConnection) -> CoordinatorError:
    """Return a Refused or ServerUnreachable that tells why the connection was closed."""
    code, reason = socket.close_code, socket.close_reason
    for close, (name, message) in _CLOSE_ERRORS.items():
        if code == close:
            return Refused(name, message)
    return ServerUnreachable(f"The connection to {url} has ended (code {code}{f', {reason}' if reason else ''}).")


@asynccontextmanager
async def admin_connection(server: str, token: str | None, authority: Path | None = None) -> AsyncIterator[AdminClient]:
    """Open an admin channel and greet the server; `authority` as in `open_channel`.

    Without a token the server is still called, so that a missing server is reported before a missing token.

    Raises:
        ConfigError: the text is not the address of a server, there is no token, or the authority's file or the proxy
            cannot be used.
        ServerUnreachable: nothing answers there, or it is not a coordinator.
        Refused: the server does not accept the token, or no connection from here.
    """
    url = admin_url(server)
    socket = await open_channel(url, authority)
    try:
        if token is None:
            raise ConfigError("a token is needed: --token, COORDINATOR_TOKEN, or the file DATA/admin-token")

        client = AdminClient(url, socket)
        reader = asyncio.create_task(client.read(), name="admin channel")
        try:
            await client.greet(token)
            yield client
        finally:
            reader.cancel()
            await asyncio.wait([reader])
    finally:
        await socket.close()


async def open_channel(url: str, authority: Path | None = None) -> ClientConnection:
    """Connect to one of a server's channels, by the same way as the volunteers' client.

    `authority` is the file of the certificate by which the server's is checked; None: those of this machine.

    Raises:
        ConfigError: the URL is not the address of a server, or the authority's file or the proxy cannot be used.
        ServerUnreachable: nothing answers there, or it is not a coordinator.
        Refused: the server takes no connection from here.
    """
    proxy = proxy_for(url)
    trusted = trust_for(url, authority)
    try:
        return await DirectConnect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            open_timeout=_CHANNEL_OPEN_TIMEOUT,
            close_timeout=2.0,
            max_size=_MAX_ADMIN_FRAME_BYTES,
            compression=None if is_loopback(url) else "deflate",
            proxy=proxy,
            user_agent_header=f"coordinator/{__version__}",
            ssl=trusted,
        )
    except InvalidStatus as failure:
        status = failure.response.status_code
        if status == HTTPStatus.FORBIDDEN:
            why = reason_in(failure.response) or "the server, or a proxy before it, refuses this name or address."
            raise Refused("forbidden", f"{url} takes no connection from here: {why}") from None
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            raise ServerUnreachable(f"{url} takes no connections now (HTTP {status}).") from None

        raise ServerUnreachable(f"{url} is no coordinator (HTTP {status}).") from None
    except InvalidURI as failure:
        raise ConfigError(f"server: {failure}") from None
    except (OSError, EOFError, WebSocketException) as failure:
        why = cause_by_way(failure, urlsplit(url).netloc, proxy)
        raise ServerUnreachable(f"No connection to the server: {why}{authority_hint(failure)}.") from failure
