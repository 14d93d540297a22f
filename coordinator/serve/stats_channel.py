"""The stats channel: live statistics, read only.  protocol.md, "Stats channel" """

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from coordinator.errors import Draining, Forbidden, Unauthorized
from coordinator.flow.core import RETRY_AFTER_DRAIN
from coordinator.serve.addresses import is_here
from coordinator.serve.channel import Edge, Step
from coordinator.serve.connection import TimestampedConnection, ref_of
from coordinator.serve.feeds import Feeds
from coordinator.serve.token_session import TokenSession, check_protocol
from coordinator.stats.page_turns import Share
from coordinator.wire import stats as wire
from coordinator.wire.codec import Codec
from coordinator.wire.frames import PROTOCOL, Answer, Close, Request

CODEC: Codec[Request] = Codec(*wire.ANSWERS)

Role = Literal["viewer", "operator", "admin"]


class Table(Protocol):
    """Returns one page of a table, charged to a share of the time for pages; raises PeerError, Unavailable."""

    def __call__(self, get: wire.Get, *, operator: bool, share: Share) -> Awaitable[wire.Page]: ...


@dataclass(frozen=True, slots=True)
class StatsDependencies:
    """The parts that a stats session uses."""

    feeds: Feeds
    table: Table


class StatsSession(TokenSession):
    """The session of one dashboard or script."""

    codec = CODEC
    hello_type = wire.StatsHello

    def __init__(
        self, connection: TimestampedConnection, address: str, edge: Edge, dependencies: StatsDependencies
    ) -> None:
        super().__init__(connection, address, edge)
        self._feeds = dependencies.feeds
        self._table = dependencies.table
        self._role: Role | None = None
        self._topics: list[str] = []
        self._interval = 1.0

    @property
    def welcomed(self) -> bool:
        return self._role is not None

    async def run(self) -> None:
        """Serve the session until it ends."""
        try:
            await self.frames()
        finally:
            self._feeds.leave(self)

    def step_for(self, request: Request) -> Step:
        return partial(ANSWERS[type(request)], self)

    def needs_its_peer(self, request: Request) -> bool:
        return True

    async def _hello(self, hello: wire.StatsHello) -> Answer:
        check_protocol(hello.protocol)
        if self._state.draining:
            raise Draining("This node drains.", retry_after=RETRY_AFTER_DRAIN, close_code=Close.RESTART)
        self._role = await self._role_of(hello.token)
        return wire.StatsWelcome(
            role=self._role, server=self._edge.card, protocol=PROTOCOL, topics=list(self._feeds.feeds)
        )

    async def _role_of(self, token: str | None) -> Role:
        """Return the role of a token: that on the admin channel, or `viewer`.

        Raises:
            Unauthorized: a token is needed, or this one is not good.
            Forbidden: it is a token for enrolment.
        """
        if token is None:
            if self.open_to_viewers:
                return "viewer"
            raise Unauthorized("Viewers need a token here.", close_code=Close.BAD_CREDENTIALS)

        known = await self.find_token(token)
        if known.role == "enrolment":
            raise Forbidden("A token for enrolment does not open this channel.", close_code=Close.FORBIDDEN)

        self.token = known
        return "admin" if known.role == "admin" else "operator" if known.role == "operator" else "viewer"

    async def _subscribe(self, subscribe: wire.Subscribe) -> None:
        self._interval = subscribe.interval
        self._topics = list(dict.fromkeys((*self._topics, *subscribe.topics)))
        self.answer(wire.Subscribed(topics=self._topics, interval=self._interval), ref_of(subscribe))
        for topic in self._topics:
            self._feeds.feeds[topic].subscribe(self, self._interval, at_once=topic in subscribe.topics)

    async def _unsubscribe(self, unsubscribe: wire.Unsubscribe) -> Answer:
        for topic in unsubscribe.topics:
            self._feeds.feeds[topic].leave(self)
        self._topics = [topic for topic in self._topics if topic not in unsubscribe.topics]
        return wire.Unsubscribed(topics=self._topics)

    async def _get(self, get: wire.Get) -> Answer | None:
        operator = self._role in ("operator", "admin")
        reading = asyncio.ensure_future(self._table(get, operator=operator, share=self._share))
        ended = asyncio.ensure_future(self.connection.wait_closed())
        try:
            await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
            return await reading if reading.done() else None
        finally:  # whoever has gone waits for no turn
            reading.cancel()
            ended.cancel()

    @property
    def _share(self) -> Share:
        """Return whose share of the time for pages this session has: its own, but for strangers of one address."""
        here = is_here(self.address) and not self.behind_proxy
        trusted = here or (self.token is not None and self._role != "viewer")
        return Share(f"session {id(self)}", trusted=True) if trusted else Share(self.address)


ANSWERS: Mapping[type[Request], Callable[[StatsSession, Any], Awaitable[Answer | None]]] = {
    wire.StatsHello: StatsSession._hello,
    wire.Subscribe: StatsSession._subscribe,
    wire.Unsubscribe: StatsSession._unsubscribe,
    wire.Get: StatsSession._get,
}
"""The stats channel: the function that answers each request."""
assert ANSWERS.keys() == wire.ANSWERS.keys()
