"""One WebSocket connection of any channel: reading frames, writing without waiting, ending."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import structlog
from msgspec import Struct, UnsetType
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from coordinator.errors import PeerError, RateLimited
from coordinator.serve.addresses import is_forwarded
from coordinator.serve.background_tasks import BackgroundTasks
from coordinator.serve.http_pages import method_not_allowed
from coordinator.serve.limits import MAX_REFUSALS_IN_A_ROW, Handshakes, TokenBucket
from coordinator.wire.codec import encode, error_frame, peek_ref
from coordinator.wire.frames import Answer, Close, Limits, Ref, Request

log = structlog.get_logger()

MAX_UNREAD_BYTES = 16 * 1024 * 1024
"""Bytes that a peer may leave unread before it is cut off."""

MAX_UNSENT_BYTES = 64 * 1024
"""Bytes that are pushed to a peer before they are written, without waiting for what else comes in this turn."""

CONTROL_FRAMES_A_MINUTE = 600
"""Pings and pongs that a peer may send; a connection with more is cut.  One in some seconds is usual."""

BYTES_PARSED_AT_ONCE = 8 * 1024
"""Received bytes that are parsed before it is looked whether the connection was cut: they may be a thousand frames."""

MAX_PEEKED = 4096
"""Characters of a frame that is refused for its rate, up to which its `ref` is looked for."""

LARGE = 16 * 1024
"""Characters of a frame after which others have a turn; sixteen frames of a megabyte may wait to be read."""

STOOD_STILL = 0.5
"""Seconds by which a timer is late if the process stood still rather than was busy."""

CLOSE_TIMEOUT = 2.0
"""Seconds within which a peer must answer a close frame."""


def ref_of(request: Request) -> Ref | None:
    """Return the `ref` for the answer to a request."""
    return None if isinstance(request.ref, UnsetType) else request.ref


class HttpConnection(ServerConnection):
    """A connection that answers a request with a body, too: the library would end it without a word."""

    _METHODS_WITH_BODY = (b"POST ", b"PUT ", b"PATCH ", b"DELETE ")
    _begun = False
    _answered = False

    def data_received(self, data: bytes) -> None:
        if not self._begun and data.startswith(self._METHODS_WITH_BODY):
            self._answered = True
            self.transport.write(method_not_allowed().serialize())
            # What comes still is read and dropped, so that no reset overtakes the answer.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()

        self._begun = True
        if not self._answered:
            super().data_received(data)


class TimestampedConnection(HttpConnection):
    """A connection that remembers who its peer is, and when it last heard from it.

    It asks `handshakes` for a place when it is accepted, and is dropped at once if there is none.
    """

    heard_at: float = 0.0
    peer: str = "local"
    """The address at the other end of the connection; `local` where that has none."""

    def __init__(self, *arguments: Any, handshakes: Handshakes, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._handshakes = handshakes
        self._place: str | None = None
        self._control_frames = TokenBucket(CONTROL_FRAMES_A_MINUTE)
        self._flooding = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Now, since uvloop does not know it any more once the peer has reset the connection.
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
        self._place = self._handshakes.enter(self.peer)
        if self._place is None:
            cast(asyncio.Transport, transport).abort()  # uvloop's are none by their class
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        for start in range(0, len(data), BYTES_PARSED_AT_ONCE):
            if self._flooding:
                return
            super().data_received(data[start : start + BYTES_PARSED_AT_ONCE])

    def send_data(self) -> None:
        # Frames that go out together in one write: each is a call of the system, as dear as reading a submit.
        frames = self.protocol.writes
        if len(frames) > 1 and all(frames):  # an empty one ends the connection
            self.protocol.writes = [b"".join(frames)]
        super().send_data()

    def process_event(self, event: Event) -> None:
        # The library answers control frames by itself: nothing else would count them.
        if isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG) and self._control_frames.take():
            self._flooding = True
            self.transport.abort()
            return
        super().process_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._place is None and not hasattr(self, "transport"):
            return  # it was dropped when it was accepted
        self.end_handshake()
        super().connection_lost(exc)

    def forget_headers(self) -> None:
        """Drop the headers of the handshake: they are a sixth of the memory of an idle session."""
        if self.request is not None:
            self.request.headers.clear()
        self.response = None

    def end_handshake(self) -> None:
        """Give the place among the handshakes to another connection."""
        if self._place is not None:
            self._handshakes.leave(self._place)
            self._place = None


class PeerConnection:
    """Reads frames of one connection, writes messages to it, and ends it."""

    def __init__(
        self, connection: TimestampedConnection, address: str, limits: Limits, background: BackgroundTasks
    ) -> None:
        self.connection = connection
        self.address = address
        self.behind_proxy = connection.request is not None and is_forwarded(connection.request.headers)
        """Whether the connection was passed on by a proxy, by the headers of its request."""
        self._hello_timeout = limits.hello_timeout
        self._background = background
        self._rate = TokenBucket(limits.messages_per_minute)
        self._refused = 0
        self._closing: tuple[int, str] | None = None
        self._receiving: asyncio.Task[Any] | None = None
        """The task that `end` may cancel, since no frame is being answered."""
        self._reading = False
        self._unsent = 0
        """Bytes that were pushed, and are written at the end of this turn of the loop."""
        self._hello_timer: asyncio.TimerHandle

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields that identify this connection in the log."""
        return {"address": self.address}

    @property
    def welcomed(self) -> bool:
        """Whether its `hello` was accepted."""
        raise NotImplementedError

    # Reading

    async def frames(self) -> None:
        """Pass each text frame to `take`, until the connection ends, `end` is called or no `hello` comes in time."""
        self._hello_timer = asyncio.get_running_loop().call_later(self._hello_timeout, self._no_hello)
        self._receiving = None

        try:
            while self._closing is None:
                self._receiving = asyncio.current_task()
                await self.connection.drain()  # nothing more is read from a peer that does not read
                self._reading = True
                frame = await self.connection.recv()
                self._reading = False
                self._receiving = None

                if not isinstance(frame, str):
                    self.end(Close.UNSUPPORTED_DATA, "text frames only")
                elif self._within_rate(frame):
                    await self.take(frame)
                    if len(frame) > LARGE:
                        await asyncio.sleep(0)
        except (ConnectionClosed, OSError):
            pass
        except asyncio.CancelledError:
            if self._closing is None:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        finally:
            self._receiving = None
            self._reading = False
            self._hello_timer.cancel()

    def _no_hello(self) -> None:
        if self.welcomed:
            return
        late = asyncio.get_running_loop().time() - self._hello_timer.when()
        if self.at_work or late > STOOD_STILL:
            # The time is ours: the database or this process stood still, and the peer may have said it meanwhile.
            self._hello_timer = asyncio.get_running_loop().call_later(self._hello_timeout, self._no_hello)
        else:
            self.end(Close.NO_HELLO, "no hello in time")

    async def take(self, frame: str) -> None:
        """Answer one frame."""
        raise NotImplementedError

    def wait_for_bytes(self, size: int) -> float:
        """Charge a frame of so many bytes; returns 0 if it may pass, or the seconds until it may."""
        raise NotImplementedError

    def _within_rate(self, frame: str) -> bool:
        """Return whether a frame may pass; if not, it is refused, and too many refusals end the connection."""
        size = len(frame) if frame.isascii() else len(frame.encode())
        seconds = self._rate.take() or self.wait_for_bytes(size)
        if not seconds:
            self._refused = 0
            return True

        self._refused += 1
        error = RateLimited("Too many messages.", retry_after=round(seconds, 3), scope="connection")
        self.refuse(error, peek_ref(frame) if len(frame) <= MAX_PEEKED else None)
        if self._refused >= MAX_REFUSALS_IN_A_ROW:
            self.end(Close.TOO_MANY, "too many messages")
        return False

    @property
    def at_work(self) -> bool:
        """Whether a frame is being answered; what the peer sends meanwhile, pongs too, may not be read yet."""
        return not self._reading and self._closing is None

    # Writing

    def push(self, message: Struct | bytes) -> None:
        """Send without waiting, together with what else is pushed now; a peer that does not read is cut off."""
        frame = message if isinstance(message, bytes) else encode(message)
        if not self.alive:
            return
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self.connection.protocol.send_text(frame)
        self._unsent += len(frame)
        if self._unsent > MAX_UNSENT_BYTES:
            self._send()

    def _send(self) -> None:
        """Write what was pushed."""
        if not self._unsent or self.connection.transport.is_closing():
            return
        self._unsent = 0
        self.connection.send_data()
        if self.unread() > MAX_UNREAD_BYTES:
            self.end(Close.SLOW_READER, "too slow a reader")

    def answer(self, answer: Answer, ref: Ref | None) -> None:
        """Send the answer to a request."""
        if ref is not None:
            answer.ref = ref
        self.push(answer)

    def push_frame(self, frame: bytes) -> None:
        """Send bytes that are a complete WebSocket frame, the same for many peers."""
        if self.alive:
            self._send()
            self.connection.transport.write(frame)

    def refuse(self, error: PeerError, ref: Ref | None) -> None:
        """Answer with an error, and end the connection if the error has a close code."""
        self.push(error_frame(error, ref))
        if error.close_code is not None:
            self.end(error.close_code, error.code)

    def unread(self) -> int:
        """Return the number of bytes that the peer has not read."""
        return int(self.connection.transport.get_write_buffer_size())

    # Ending

    def end(self, code: int, reason: str) -> None:
        """Close the connection; its buckets are freed at once, not after the close handshake."""
        if self._closing is not None:
            return
        self._closing = (code, reason)
        if self.connection.protocol.state is State.OPEN:
            # At once, so that the library cannot send a close frame of its own first.
            self.connection.protocol.send_close(code, reason[:120])
            self.connection.send_data()
        self._background.begin(self._close())
        if self._receiving is not None and self._receiving is not asyncio.current_task():
            self._receiving.cancel()

    @property
    def alive(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return self._closing is None and self.connection.protocol.state is State.OPEN

    async def _close(self) -> None:
        # If the peer reads nothing, close() waits for the write before its own timeout begins.
        timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT + 1.0, self.connection.transport.abort)
        try:
            await self.connection.close()
        finally:
            timer.cancel()
