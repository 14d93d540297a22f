"""Topics to their subscribers: one computation and one encoding a tick, however many there are.

A snapshot is whole, so nothing is queued: who has not read the last one is passed over, and gets the newest later.
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
from coordinator.wire.stats import BucketRow, Rows, Snapshot

log = structlog.get_logger()

TICK = 0.25
"""Seconds; the shortest interval, and how soon a slow reader is looked at again."""

TOGETHER = 2.0
"""Intervals of up to so many seconds are kept in step, so that all of them share a computation."""

RETRY = 1.0
"""Seconds between tries while the database is away."""

AFTER_FAULT = 10.0
"""Seconds after which a topic that failed is tried again."""

Look = Callable[[], Awaitable[Struct]]


@dataclass(slots=True, eq=False)
class Subscription:
    """One topic to one session; `due` by the loop's clock, `sent` the number of the last snapshot (0: none)."""

    peer: PeerConnection
    interval: float
    due: float = 0.0
    sent: int = 0


class Feed:
    """One topic."""

    def __init__(self, topic: str, look: Look, events: Events) -> None:
        self._topic = topic
        self._look = look
        self._events = events
        self._subscriptions: dict[PeerConnection, Subscription] = {}
        self._called = asyncio.Event()
        self._frame = b""
        self._mark = b""
        self._seq = 0
        self._fresh_until = -math.inf
        self.computed = 0
        """How often it was looked up, for tests and metrics."""

    def subscribe(self, peer: PeerConnection, interval: float, *, at_once: bool) -> None:
        """From now on in that interval, whatever it was before; `at_once`: the newest one now, seen or not."""
        one = self._subscriptions.setdefault(peer, Subscription(peer, interval))
        one.interval = interval
        if at_once:
            one.due, one.sent = 0.0, 0
            self._called.set()

    def leave(self, peer: PeerConnection) -> None:
        """No longer."""
        self._subscriptions.pop(peer, None)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._subscriptions:
                self._fresh_until = -math.inf
                await self._called.wait()
            self._called.clear()
            try:
                await self._round()
            except Unavailable:
                await asyncio.sleep(RETRY)
                continue
            except Exception:
                # One topic must not end the node.
                log.exception("a topic cannot be computed", topic=self._topic)
                self._events.emit("fault", f"the topic {self._topic} cannot be computed")
                await asyncio.sleep(AFTER_FAULT)
                continue
            if self._subscriptions:
                await self._sleep(self._until_next(loop.time()))

    def _until_next(self, now: float) -> float:
        """Seconds until the next subscription is due.

        Only at ticks, so that those who are due about the same time are served together.
        """
        next_due = min(one.due for one in self._subscriptions.values())
        return max(math.ceil(max(next_due, now) / TICK - 1e-6) * TICK - now, 0.001)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._called.wait()
        except TimeoutError:
            pass

    async def _round(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = [one for one in self._subscriptions.values() if one.due <= now]
        if not due:
            return
        if now >= self._fresh_until:
            await self._compute()
            self._fresh_until = now + TICK * 0.9
        for one in due:
            if one.sent == self._seq:
                one.due = _step(now, min(one.interval, 1.0))
            elif one.peer.unread():
                one.due = now + TICK
            else:
                one.peer.push_frame(self._frame)
                one.sent = self._seq
                one.due = _step(now, one.interval)

    async def _compute(self) -> None:
        found = await self._look()
        self.computed += 1
        mark = encode(_timeless(found))
        if mark == self._mark:
            return
        self._mark = mark
        self._seq += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        snapshot = Snapshot(topic=self._topic, seq=self._seq, at=at, data=Raw(encode(found)))
        # The server's frames are not masked, so the bytes are the same for all.
        self._frame = Frame(Opcode.TEXT, encode(snapshot)).serialize(mask=False)


class Feeds:
    """All topics."""

    def __init__(self, looks: Mapping[str, Look], events: Events) -> None:
        self.feeds = {topic: Feed(topic, look, events) for topic, look in looks.items()}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for topic, feed in self.feeds.items():
                group.create_task(feed.run(), name=f"feed {topic}")

    def leave(self, peer: PeerConnection) -> None:
        """A session has ended."""
        for feed in self.feeds.values():
            feed.leave(peer)


def _step(now: float, interval: float) -> float:
    """When an interval has passed; short ones end in step with each other."""
    if interval > TOGETHER:
        return now + interval
    return math.ceil((now + interval - TICK / 2) / interval) * interval


def _timeless(found: Struct) -> Any:
    """What is found without what only time changes."""
    if isinstance(found, Rows) and found.rows and isinstance(found.rows[0], BucketRow):
        return Rows(found.total, [structs.replace(row, age=None) for row in found.rows])
    return found
