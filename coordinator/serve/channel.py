"""The edge of all three channels: decode a request, admit it, call its step, answer or refuse it, log.

A channel is a table from the type of a request to the function that answers it.  A few methods of `ChannelSession`
are overridden where channels differ beside that table.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog

from coordinator.errors import CoordinatorError, Internal, PeerError, ServerUnavailable, Unavailable, Unsupported
from coordinator.flow.core import Core
from coordinator.serve.background_tasks import BackgroundTasks
from coordinator.serve.connection import PeerConnection, TimestampedConnection, ref_of
from coordinator.serve.costs import Costs
from coordinator.serve.limits import BYTES_A_MINUTE, Addresses, TokenBucket
from coordinator.wire.codec import Codec, Undecodable, tag_of
from coordinator.wire.frames import PROTOCOL, Answer, Close, Limits, Request, ServerCard

log = structlog.get_logger()

RETRY_AFTER_UNAVAILABLE = 1.0
"""Seconds until a peer should try again while the database is away."""

Step = Callable[[Any], Awaitable[Answer | None]]
"""Returns the answer to one request; None if the step answers it itself, now or later."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The parts that the sessions of all channels use."""

    core: Core
    background: BackgroundTasks
    addresses: Addresses
    costs: Costs
    limits: Limits
    card: ServerCard


class ChannelSession(PeerConnection):
    """One session of one channel."""

    codec: ClassVar[Codec[Request]]
    refusals_logged_at: ClassVar[int] = logging.DEBUG

    def __init__(self, connection: TimestampedConnection, address: str, edge: Edge) -> None:
        super().__init__(connection, address, edge.limits, edge.background)
        self._edge = edge
        self._state = edge.core.state
        self._bytes = TokenBucket(BYTES_A_MINUTE)

    async def take(self, frame: str) -> None:
        try:
            request = self.codec.decode(frame)
        except Undecodable as refusal:
            self.refuse(self.undecodable(frame, refusal.error), refusal.ref)
            return
        if self.alive or not self.needs_its_peer(request):
            await self.conclude(request, self._admit_and_call)

    async def _admit_and_call(self, request: Request) -> Answer | None:
        await self.admit(request)
        return await self.step_for(request)(request)

    async def conclude(self, request: Request, step: Step) -> None:
        """Answer a request with the answer that a step returns, or with the error that it raises."""
        error: PeerError | None = None
        answer: Answer | None = None
        try:
            answer = await step(request)
        except CoordinatorError as failure:
            error = peer_error_of(failure, **self.log_fields)
            kind = tag_of(type(request))
            log.log(self.refusals_logged_at, "refused", request=kind, code=error.code, **self.log_fields)
        except Exception as fault:
            # The edge of the connection: a fault of this program is answered and logged; other sessions go on.
            text = f"{tag_of(type(request))} could not be answered: {type(fault).__name__}"
            self._edge.core.events.emit("fault", text, **self.origin)
            log.exception("a request failed", request=tag_of(type(request)), **self.log_fields)
            error = Internal("Something went wrong here.")

        await self.note(request, error)
        if error is not None:
            self.refuse(error, ref_of(request))
        elif answer is not None:
            self.answer(answer, ref_of(request))

    def wait_for_bytes(self, size: int) -> float:
        if self.known:
            return self._bytes.take(size)
        return self._edge.addresses.strangers_bytes.take(self.address, size)

    @property
    def open_to_viewers(self) -> bool:
        """Whether who comes the way of this session may watch without a token."""
        settings = self._edge.core.state.settings
        return settings.access_to("viewers", behind_proxy=self.behind_proxy) == "open"

    # What differs between the channels

    @property
    def known(self) -> bool:
        """Whether it is known who the peer is, by a registration or a token."""
        raise NotImplementedError

    async def admit(self, request: Request) -> None:
        """Check that a request is legal now.

        Raises:
            PeerError: it is not.
        """
        raise NotImplementedError

    def step_for(self, request: Request) -> Step:
        """Return the function that answers requests of this type."""
        raise NotImplementedError

    def needs_its_peer(self, request: Request) -> bool:
        """Whether a request is of use to nobody once its peer has gone, such as one that only reads."""
        raise NotImplementedError

    def undecodable(self, frame: str, error: PeerError) -> PeerError:
        """Return the error that answers a frame that is not a message of this channel."""
        return error

    @property
    def origin(self) -> dict[str, str]:
        """The client, as a field of this session's events; empty if it has none."""
        return {}

    async def note(self, request: Request, error: PeerError | None) -> None:
        """Record the outcome of a request, before it is answered."""


def peer_error_of(failure: CoordinatorError, **log_fields: str) -> PeerError:
    """Return the error that tells a peer of a failure; a fault of this program is logged with `log_fields`."""
    if isinstance(failure, PeerError):
        return failure
    if isinstance(failure, Unavailable):
        return ServerUnavailable(
            "The database cannot be reached; nothing is known to be stored.",
            retry_after=RETRY_AFTER_UNAVAILABLE,
            scope="server",
        )
    log.error("a request failed", error=str(failure), **log_fields)
    return Internal("Something went wrong here.")


def other_version(protocol: int) -> PeerError:
    """Return the error for a peer that speaks another protocol version."""
    return Unsupported(
        f"This server speaks version {PROTOCOL}, not {protocol}.",
        detail={"path": "$.protocol"},
        close_code=Close.VERSION,
    )
