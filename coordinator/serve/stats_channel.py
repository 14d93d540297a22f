"""The stats channel: live statistics, read only.  protocol.md, "Stats channel" """

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from coordinator import credentials
from coordinator.errors import (
    CoordinatorError,
    Draining,
    Forbidden,
    Internal,
    OutOfOrder,
    Unauthorized,
    Unsupported,
)
from coordinator.observe.events import Events
from coordinator.serve.client_channel import in_words
from coordinator.serve.connection import ChannelSession, Spawn, TimestampedConnection, ref_of
from coordinator.serve.feeds import Feeds
from coordinator.store import tokens
from coordinator.store.pool import Database
from coordinator.wire import stats as wire
from coordinator.wire.codec import Codec, Undecodable, tag_of
from coordinator.wire.frames import PROTOCOL, Answer, Close, Ref, Request, ServerCard

log = structlog.get_logger()

CODEC: Codec[Request] = Codec(*wire.ANSWERS)

Role = Literal["viewer", "operator", "admin"]

Table = Callable[[wire.Get], Awaitable[wire.Page]]
"""Answers `get`; raises PeerError, Unavailable."""


@dataclass(frozen=True, slots=True)
class StatsDependencies:
    """What a stats session works with; `viewers` says whether one needs a token."""

    database: Database
    feeds: Feeds
    table: Table
    viewers: Literal["open", "token"]
    card: ServerCard
    hello_timeout: float
    messages_per_minute: int
    spawn: Spawn
    events: Events
    draining: Callable[[], bool]
    drain_retry: float


class StatsSession(ChannelSession):
    """One dashboard or script."""

    def __init__(self, connection: TimestampedConnection, address: str, steps: StatsDependencies) -> None:
        super().__init__(connection, address, steps.messages_per_minute, steps.hello_timeout, steps.spawn)
        self._steps = steps
        self._role: Role | None = None
        self._topics: list[str] = []
        self._interval = 1.0
        self.token_id: str | None = None
        """The token that this session lives by, if by one."""

    @property
    def welcomed(self) -> bool:
        return self._role is not None

    async def run(self) -> None:
        """The whole life of the session."""
        try:
            await self.frames()
        finally:
            self._steps.feeds.leave(self)

    async def take(self, frame: str) -> None:
        try:
            request = CODEC.decode(frame)
        except Undecodable as refusal:
            self.refuse(refusal.error, refusal.ref)
            return
        ref = ref_of(request)
        try:
            await self._carry_out(request, ref)
        except CoordinatorError as failure:
            error = in_words(failure, **self.log_fields)
            log.debug("viewer refused", request=tag_of(type(request)), code=error.code, **self.log_fields)
            self.refuse(error, ref)
        except Exception:
            # The edge of the connection: a fault of ours is answered and logged, and nobody else notices.
            self._steps.events.emit("fault", f"{tag_of(type(request))} of the stats channel could not be answered")
            log.exception("stats step failed", request=tag_of(type(request)), **self.log_fields)
            self.refuse(Internal("Something went wrong here."), ref)

    async def _carry_out(self, request: Request, ref: Ref | None) -> None:
        if isinstance(request, wire.StatsHello):
            self.answer(await self._hello(request), ref)
            return
        if self._role is None:
            raise OutOfOrder("The first message is hello.")
        match request:
            case wire.Subscribe():
                self._subscribe(request, ref)
            case wire.Unsubscribe():
                self._unsubscribe(request, ref)
            case wire.Get():
                self.answer(await self._steps.table(request), ref)

    async def _hello(self, hello: wire.StatsHello) -> Answer:
        if self._role is not None:
            raise OutOfOrder("hello is the first message, and comes once.")
        if hello.protocol != PROTOCOL:
            raise Unsupported(
                f"This server speaks version {PROTOCOL}.", detail={"path": "$.protocol"}, close_code=Close.VERSION
            )
        if self._steps.draining():
            raise Draining("This node drains.", retry_after=self._steps.drain_retry, close_code=Close.RESTART)
        self._role = await self._role_of(hello.token)
        return wire.StatsWelcome(
            role=self._role, server=self._steps.card, protocol=PROTOCOL, topics=list(self._steps.feeds.feeds)
        )

    async def _role_of(self, token: str | None) -> Role:
        """What a viewer may do on the admin channel with the same token; nothing without one."""
        if token is None:
            if self._steps.viewers == "open":
                return "viewer"
            raise Unauthorized("Viewers need a token here.", close_code=Close.BAD_CREDENTIALS)
        async with self._steps.database.connection() as db:
            found = await tokens.find(db, credentials.hash_token(token))
        if found is None:
            raise Unauthorized("That token is not good.", close_code=Close.BAD_CREDENTIALS)
        if found.role == "enrolment":
            raise Forbidden("A token for enrolment does not open this channel.", close_code=Close.FORBIDDEN)
        self.token_id = found.token_id
        return "admin" if found.role == "admin" else "operator" if found.role == "operator" else "viewer"

    def _subscribe(self, subscribe: wire.Subscribe, ref: Ref | None) -> None:
        self._interval = subscribe.interval
        self._topics = list(dict.fromkeys((*self._topics, *subscribe.topics)))
        self.answer(wire.Subscribed(topics=self._topics, interval=self._interval), ref)
        for topic in self._topics:
            self._steps.feeds.feeds[topic].subscribe(self, self._interval, at_once=topic in subscribe.topics)

    def _unsubscribe(self, unsubscribe: wire.Unsubscribe, ref: Ref | None) -> None:
        for topic in unsubscribe.topics:
            self._steps.feeds.feeds[topic].leave(self)
        self._topics = [topic for topic in self._topics if topic not in unsubscribe.topics]
        self.answer(wire.Unsubscribed(topics=self._topics), ref)
