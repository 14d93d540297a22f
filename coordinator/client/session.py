"""A connection to the client channel, from its `hello` to its close.  protocol.md, "Life of a session" """

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Struct
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from coordinator.client.address import DirectConnect, Trust, authority_hint, reason_in
from coordinator.client.causes import cause_by_way
from coordinator.client.proxies import proxy_for
from coordinator.errors import CoordinatorError, Refused
from coordinator.wire.client import Drain, FromServer, Hello, Welcome
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import SUBPROTOCOL, Answer, Close, Error, Push, Request

log = logging.getLogger("coordinator.client")

A = TypeVar("A", bound=Answer)

OPEN_TIMEOUT = 10.0
"""Seconds for the handshake, and again for the answer to `hello`."""

ANSWER_TIMEOUT = 120.0
"""Seconds for an answer; a server that needs longer is taken as gone, even if it answers pings."""

_CLOSE_HANDSHAKE_TIMEOUT = 3.0
_MAX_FRAME_BYTES = 64 << 20
"""The largest frame of the server; the size of its buckets is its operator's choice."""

_FINAL_HELLO_REFUSALS = frozenset({"unauthorized", "forbidden", "unsupported", "client_deactivated", "bad_message"})
"""Refusals of `hello` that a repeated `hello` would get again."""

_RETRY_AFTER_CLOSE = {int(Close.TOO_MANY): 5.0, int(Close.OVERLOADED): 5.0}
"""Seconds to stay away after these closes if the server named no time."""

_CLOSE_MESSAGES = {
    1006: "The connection broke off: the network was away, this machine slept, or the server was killed",
    int(Close.BAD_CREDENTIALS): "The server does not accept this client's secret",
    int(Close.FORBIDDEN): "The server does not let this client in",
    int(Close.DEACTIVATED): "The server has deactivated this client",
    int(Close.VERSION): "The server does not speak this version of the protocol",
}

_message_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FromServer)
_json_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class SessionEnded(CoordinatorError):
    """Raised when the connection ended, or could not be made.

    `code` is the close code, if there was one; `final` says that another attempt is useless, `unwelcome` that it is so
    unless the server has welcomed this client before: what stands before a server answers for it while it restarts.
    `retry_after` is for how many seconds the client shall not connect, if the server said so.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        final: bool = False,
        unwelcome: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.final = final
        self.unwelcome = unwelcome
        self.retry_after = retry_after


@dataclass(slots=True)
class _PendingRequest:
    expects: type[Answer]
    answer: asyncio.Future[Any]
    on_answer: Callable[[Any], None] | None


class Session:
    """An open session.  `run` reads it; meanwhile requests may be made from any task."""

    def __init__(self, socket: ClientConnection, welcome: Welcome) -> None:
        self.welcome = welcome
        self.date = socket.response.headers.get("Date") if socket.response is not None else None
        self.draining = False
        self._socket = socket
        self._waiting: dict[int, _PendingRequest] = {}
        self._next = 1
        self._retry_after: float | None = None
        self._ended: SessionEnded | None = None

    @classmethod
    async def open(cls, url: str, hello: Hello, trust: Trust) -> Session:
        """Connect and say hello; `trust` is what `trust_for` returned for this URL.

        Raises:
            SessionEnded: there is no connection, or the server does not want this client.
        """
        socket = await _connect(url, trust)
        try:
            return cls(socket, await _greet(socket, hello))
        except BaseException:
            await socket.close()
            raise

    async def request(self, message: Request, expects: type[A], on_answer: Callable[[A], None] | None = None) -> A:
        """Ask and wait for the answer.

        `on_answer` gets the answer before any later frame is read, so that it has taken effect before later pushes.

        Raises:
            Refused: the server answered with an error.
            SessionEnded: the connection ended first; whether the request took effect is not known.
        """
        if self._ended is not None:
            raise self._ended
        ref = self._next
        self._next += 1
        waiting = _PendingRequest(expects, asyncio.get_running_loop().create_future(), on_answer)
        self._waiting[ref] = waiting

        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                try:
                    await self._socket.send(frame_of(message, ref), text=True)
                except ConnectionClosed:
                    if self._ended is None:  # `run` will notice in a moment, and say more
                        raise _ended_by(self._socket, self._retry_after) from None

                answer: A = await waiting.answer
                return answer
        except TimeoutError:
            await self._socket.close(Close.GOING_AWAY)
            raise SessionEnded(f"The server did not answer {tag_of(type(message))} in time.") from None
        finally:
            del self._waiting[ref]

    async def run(self, pushed: Callable[[Push], None]) -> NoReturn:
        """Read until the connection ends.

        Raises:
            SessionEnded: always, in the end.
        """
        try:
            while True:
                message = _decode(await self._socket.recv(decode=False), self._fail)

                if isinstance(message, Answer):
                    self._answered(message)
                elif isinstance(message, Push):
                    if isinstance(message, Drain):
                        self.draining = True
                        self._retry_after = message.retry_after
                    pushed(message)
        except ConnectionClosed:
            raise _ended_by(self._socket, self._retry_after) from None
        finally:
            self._ended = _ended_by(self._socket, self._retry_after)
            for waiting in self._waiting.values():
                if not waiting.answer.done():
                    waiting.answer.set_exception(self._ended)

    async def close(self) -> None:
        """End the session with a regular close."""
        await self._socket.close()

    def _answered(self, message: Answer) -> None:
        """Hand an answer to the request that waits for it."""
        waiting = self._waiting.get(message.ref) if isinstance(message.ref, int) else None

        if isinstance(message, Error):
            refused = refusal(message)
            if waiting is None:
                # Not about a request: it says why a close is coming, and when to connect again.
                log.warning("the server says: %s", refused)
                self._retry_after = refused.retry_after
            elif not waiting.answer.done():
                waiting.answer.set_exception(refused)
        elif waiting is None or not isinstance(message, waiting.expects):
            log.warning("an answer %s that nobody waits for", tag_of(type(message)))
        else:
            # A requester that was cancelled meanwhile still has its bookkeeping done.
            if waiting.on_answer is not None:
                waiting.on_answer(message)
            if not waiting.answer.done():
                waiting.answer.set_result(message)

    def _fail(self, ref: object, why: str) -> None:
        waiting = self._waiting.get(ref) if isinstance(ref, int) else None
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_exception(Refused("internal", f"The answer cannot be read: {why}"))


def frame_of(message: Request, ref: int) -> bytes:
    """Encode one request for the wire; fields that are None or unset are left out."""
    fields = {
        name: value
        for name in message.__struct_fields__
        if (value := getattr(message, name)) is not None and value is not UNSET
    }
    return _encode({"type": tag_of(type(message)), **fields, "ref": ref})


def refusal(error: Error) -> Refused:
    """Make the exception that the client raises for an `error` frame."""
    return Refused(
        error.code,
        error.message,
        error.detail if isinstance(error.detail, dict) else None,
        error.retry_after if isinstance(error.retry_after, int | float) else None,
    )


async def _connect(url: str, trust: Trust) -> ClientConnection:
    proxy = proxy_for(url)
    try:
        return await DirectConnect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            proxy=proxy,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=_CLOSE_HANDSHAKE_TIMEOUT,
            max_size=_MAX_FRAME_BYTES,
            ssl=trust,
        )
    except InvalidStatus as answer:
        status, headers = answer.response.status_code, answer.response.headers
        hint, reason = _hint(status, headers.get("Location")), reason_in(answer.response)
        raise SessionEnded(
            f"{url} answered HTTP {status}{hint}. {reason}".rstrip(),
            unwelcome=status < 500 and status not in (408, 425, 429),
            retry_after=_seconds(headers.get("Retry-After")),
        ) from None

    except InvalidURI as failure:
        raise SessionEnded(f"{url} is not an address: {failure}.", unwelcome=True) from None

    except (OSError, EOFError, WebSocketException) as failure:
        why = cause_by_way(failure, urlsplit(url).netloc, proxy)
        raise SessionEnded(
            f"No connection to the server: {why}{_tls_hint(url, failure)}{authority_hint(failure)}."
        ) from failure


def _tls_hint(url: str, failure: Exception) -> str:
    """Ask whether only one side speaks TLS, where the handshake ended as it does then."""
    if not isinstance(failure, InvalidMessage | ConnectionResetError | EOFError):
        return ""
    return " (perhaps without TLS: ws://)" if url.startswith("wss:") else " (perhaps with TLS: wss://)"


def _hint(status: int, location: str | None) -> str:
    """Return what an HTTP answer may mean that is none of a coordinator."""
    if 300 <= status < 400 and location:
        return f": it sends to {location}, where your secret does not go; give that address if it is the server's"
    if status == 404:
        return ": there is no coordinator at this path"
    if status in (401, 403):
        return ": the server, or something before it, does not let this name or address in"
    return "" if status >= 400 else ": that is no coordinator"


async def _greet(socket: ClientConnection, hello: Hello) -> Welcome:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            await socket.send(frame_of(hello, 0), text=True)
            while True:
                message = _decode(await socket.recv(decode=False), _unreadable)
                if isinstance(message, Welcome):
                    return message
                if isinstance(message, Error):
                    break
    except ConnectionClosed:
        raise _ended_by(socket, None) from None
    except TimeoutError:
        raise SessionEnded("The server did not answer hello in time.") from None

    refused = refusal(message)
    try:
        async with asyncio.timeout(_CLOSE_HANDSHAKE_TIMEOUT):  # the close that may follow says more
            await socket.wait_closed()
    except TimeoutError:
        await socket.close()

    code = socket.close_code
    raise SessionEnded(
        f"The server refused hello: {refused.message}",
        code=code,
        final=(code or 0) >= Close.BAD_CREDENTIALS,
        unwelcome=refused.code in _FINAL_HELLO_REFUSALS,
        retry_after=refused.retry_after,
    )


def _unreadable(_ref: object, why: str) -> NoReturn:
    raise SessionEnded(f"The server's answer to hello cannot be read: {why}", unwelcome=True)


def _decode(frame: bytes | str, unreadable: Callable[[object, str], None]) -> Struct | None:
    """Decode one message; None if this client does not know its kind."""
    try:
        message: Struct = _message_decoder.decode(frame)
    except (msgspec.MsgspecError, RecursionError) as failure:
        try:
            generic = _json_decoder.decode(frame)
        except (msgspec.MsgspecError, RecursionError):
            generic = None
        fields = generic if isinstance(generic, dict) else {}
        if "ref" in fields:
            log.warning("an answer %r that cannot be read: %s", fields.get("type"), failure)
            unreadable(fields["ref"], str(failure))
        else:
            _show_unknown(fields, failure)
        return None
    return message


def _show_unknown(push: dict[str, Any], failure: Exception) -> None:
    """Show what a push of a newer server has to say to people; all else of it means nothing to this client."""
    log.debug("a push %r that cannot be read: %s", push.get("type"), failure)
    text, service = push.get("text"), push.get("service")
    if isinstance(text, str):
        log.info("the server says: %s%s", f"{service}: " if isinstance(service, str) else "", text)


def _ended_by(socket: ClientConnection, retry_after: float | None) -> SessionEnded:
    code = socket.close_code or int(Close.GOING_AWAY)
    said = socket.close_reason or ""
    sentence = _CLOSE_MESSAGES.get(code, "The connection ended")
    return SessionEnded(
        f"{sentence} ({code}{': ' + said if said else ''}).",
        code=code,
        final=code >= Close.BAD_CREDENTIALS,
        retry_after=retry_after if retry_after is not None else _RETRY_AFTER_CLOSE.get(code),
    )


def _seconds(text: str | None) -> float | None:
    """Read a `Retry-After` header in seconds; its other form, a date, is not supported."""
    return float(text) if text is not None and text.isdecimal() else None
