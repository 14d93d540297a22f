"""Snapshots of topics to their subscribers: one computation and one encoding a round, however many there are.

A snapshot is whole, so nothing is queued: a subscriber that has not read the last one gets the newest later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec import Raw, Struct, structs
from websockets.frames import Frame, Opcode

from coordinator.errors import Unavailable
from coordinator.observe.events import Events
from coordinator.serve.connection import PeerConnection
from coordinator.wire.codec import encode
from coordinator.wire.stats import BucketRow, FirstRows, Snapshot

log = structlog.get_logger()

FEED_TICK = 0.25
"""Seconds; the shortest interval, and how soon a slow reader is tried again."""

ROUND_GAP = 0.05
"""Seconds between two rounds of a topic, however often viewers subscribe: each looks at all of its subscriptions."""

MAX_ALIGNED_INTERVAL = 2.0
"""Intervals of up to so many seconds are kept in step, so that all of them share a computation."""

TOPIC_RETRY_INTERVAL = 1.0
"""Seconds between tries while the database is away."""

TOPIC_FAULT_PAUSE = 10.0
"""Seconds after which a topic that failed is tried again."""

TopicQuery = Callable[[], Awaitable[Struct]]


@dataclass(slots=True, eq=False)
class Subscription:
    """One topic to one session; `due` by the loop's clock, `sent` the number of the last snapshot (0: none)."""

    peer: PeerConnection
    interval: float
    due: float = 0.0
    sent: int = 0


class Feed:
    """Sends one topic to its subscribers."""

    def __init__(self, topic: str, query: TopicQuery, events: Events) -> None:
        self._topic = topic
        self._query = query
        self._events = events
        self._subscriptions: dict[PeerConnection, Subscription] = {}
        self._called = asyncio.Event()
        self._frame = b""
        self._content = b""
        self._seq = 0
        self._fresh_until = -math.inf
        self.computed = 0
        """Computations since the node started."""

    def subscribe(self, peer: PeerConnection, interval: float, *, at_once: bool) -> None:
        """Send the topic to that peer in this interval from now on; `at_once`: the newest snapshot now, sent or not."""
        subscription = self._subscriptions.setdefault(peer, Subscription(peer, interval))
        subscription.interval = interval
        if at_once:
            subscription.due, subscription.sent = 0.0, 0
            self._called.set()

    def leave(self, peer: PeerConnection) -> None:
        """Send nothing to that peer any more."""
        self._subscriptions.pop(peer, None)

    async def run(self) -> None:
        """Compute and send while anyone is subscribed, until cancelled."""
        loop = asyncio.get_running_loop()
        next_round = loop.time()

        while True:
            if not self._subscriptions:
                self._fresh_until = -math.inf
                await self._called.wait()
            await asyncio.sleep(next_round - loop.time())
            self._called.clear()
            next_round = loop.time() + ROUND_GAP

            try:
                await self._round()
            except Unavailable:
                await asyncio.sleep(TOPIC_RETRY_INTERVAL)
                continue
            except Exception as fault:
                # One topic must not end the node.
                log.exception("a topic cannot be computed", topic=self._topic)
                self._events.emit("fault", f"the topic {self._topic} cannot be computed: {type(fault).__name__}")
                await asyncio.sleep(TOPIC_FAULT_PAUSE)
                continue

            if self._subscriptions:
                await self._sleep(self._until_next(loop.time()))

    def _until_next(self, now: float) -> float:
        """Return the seconds until the next subscription is due.

        A multiple of the tick, so that those who are due about the same time are served together.
        """
        next_due = min(one.due for one in self._subscriptions.values())
        return max(math.ceil(max(next_due, now) / FEED_TICK - 1e-6) * FEED_TICK - now, 0.001)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._called.wait()
        except TimeoutError:
            pass

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [one for one in self._subscriptions.values() if one.due <= now]
        if not due:
            return

        if now >= self._fresh_until:
            await self._compute()
            self._fresh_until = now + FEED_TICK * 0.9

        for subscription in due:
            if subscription.sent == self._seq:
                subscription.due = _next_due(now, min(subscription.interval, 1.0))
            elif subscription.peer.unread():
                subscription.due = now + FEED_TICK
            else:
                subscription.peer.push_frame(self._frame)
                subscription.sent = self._seq
                subscription.due = _next_due(now, subscription.interval)

    async def _compute(self) -> None:
        found = await self._query()
        self.computed += 1
        content = encode(_timeless(found))
        if content == self._content:
            return

        self._content = content
        self._seq += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        snapshot = Snapshot(topic=self._topic, seq=self._seq, at=at, data=Raw(encode(found)))
        # The server's frames are not masked, so the bytes are the same for all.
        self._frame = Frame(Opcode.TEXT, encode(snapshot)).serialize(mask=False)


class Feeds:
    """Sends all topics."""

    def __init__(self, queries: Mapping[str, TopicQuery], events: Events) -> None:
        self.feeds = {topic: Feed(topic, query, events) for topic, query in queries.items()}

    async def run(self) -> None:
        """Run the feed of each topic, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for topic, feed in self.feeds.items():
                group.create_task(feed.run(), name=f"feed {topic}")

    def leave(self, peer: PeerConnection) -> None:
        """Send nothing to that peer any more: its session has ended."""
        for feed in self.feeds.values():
            feed.leave(peer)


def _next_due(now: float, interval: float) -> float:
    """Return when an interval has passed; short ones end in step with each other."""
    if interval > MAX_ALIGNED_INTERVAL:
        return now + interval
    return math.ceil((now + interval - FEED_TICK / 2) / interval) * interval


def _timeless(found: Struct) -> Any:
    """Return the data without what changes with time alone."""
    if isinstance(found, FirstRows) and found.rows and isinstance(found.rows[0], BucketRow):
        return FirstRows(found.total, [structs.replace(row, age=None) for row in found.rows])
    return found
