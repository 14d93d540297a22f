"""The stream of buckets of one service, and the asks that keep it flowing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial

from coordinator.client.backoff import Backoff
from coordinator.client.held_bucket import HeldBucket
from coordinator.client.reconnector import Reconnector
from coordinator.client.session import SessionEnded
from coordinator.client.wait_words import TOLD_AT_ONCE, words_for
from coordinator.errors import CoordinatorError, Refused
from coordinator.wire.client import Activate, Activated, Ask, Asked, ServiceState, WaitChanged, Welcome
from coordinator.wire.frames import Waiting

log = logging.getLogger("coordinator.client")

_ASK_INTERVAL_WHEN_FULL = 15.0
"""Seconds until a client that was granted nothing asks again, if no bucket of its own ends before: other sessions of it
may hold all that it may hold."""

_SILENT_WAIT = 30.0
"""Seconds that an ask waits before the volunteer is told."""

_TRANSIENT_ASK_REFUSALS = frozenset({"unavailable", "rate_limited", "quota", "no_work", "internal", "out_of_order"})


class BucketStream:
    """The buckets of one service as they arrive: `async for bucket in stream`.

    `wanted()` returns how many buckets should be under way to this client just now; `nudge()` has it called
    again after a change.  The server pushes a bucket as soon as it has one: nothing is polled.

    Iterating raises Refused if the server will give this client no work of this service, and SessionEnded if
    the client will not connect again; a new iteration asks again.
    """

    def __init__(self, service: str, reconnector: Reconnector, wanted: Callable[[], int]) -> None:
        self.service = service
        self.wanted = wanted
        self._reconnector = reconnector
        self._pending = 0
        self._state: ServiceState = "active"
        self._max_per_ask = 1
        self._arrived: deque[HeldBucket] = deque()
        self._failure: CoordinatorError | None = None

        self.stopped = False
        self._nudged = asyncio.Event()
        self._changed = asyncio.Event()
        self._paused = False
        self._full = False
        self._limit: int | None = None
        self._waits = 0
        self.waiting: Waiting | None = None
        """Why the server sends nothing, as it has told last; None while nothing is missing."""
        self._told_reason: str | None = None

    def __aiter__(self) -> BucketStream:
        return self

    async def __anext__(self) -> HeldBucket:
        while True:
            while self._arrived:
                bucket = self._arrived.popleft()
                if not bucket.lost.is_set() and not bucket.ended.is_set():
                    return bucket

            if self.stopped:
                raise StopAsyncIteration
            if self._failure is not None:
                failure, self._failure = self._failure, self._reconnector.failure
                self.nudge()
                raise failure

            self._changed.clear()
            await self._changed.wait()

    @property
    def arrived(self) -> int:
        """The number of buckets that have arrived and are not taken yet."""
        return len(self._arrived)

    def nudge(self) -> None:
        """Have `run` look again whether to ask for more."""
        self._nudged.set()

    def deliver(self, bucket: HeldBucket, *, asked: bool) -> None:
        """Add a bucket that has arrived; `asked` is false for one that this client held before the cut."""
        if asked:
            self._pending = max(0, self._pending - 1)
            self._waits += 1
            if not self._pending:
                self.waiting = self._told_reason = None
        self._arrived.append(bucket)
        self._changed.set()
        self.nudge()

    def welcomed(self, welcome: Welcome) -> None:
        """Begin a session, in which nothing is pending yet."""
        self._pending = 0
        self.waiting = None
        self._max_per_ask = welcome.limits.max_buckets_per_ask
        self._paused = self._full = False
        for card in welcome.services:
            if card.service == self.service:
                self._state = card.state
        self.nudge()

    def changed(self, state: ServiceState) -> None:
        """Note that the service was paused, revoked or brought back."""
        if state != self._state:
            log.warning("service %s is %s", self.service, state)
        if state == "revoked":
            self._pending = 0
        self._state = state
        self._paused = False
        self.nudge()

    def waits(self, push: WaitChanged) -> None:
        """Note why the server sends nothing now; it may have dropped what this client waits for."""
        if push.reason == "served" or push.reason == "deactivated":
            self._pending = 0
            self.waiting = None
            log.warning("%s: the server has dropped what was asked for: %s", self.service, push.text)
            self.nudge()
        else:
            self._note_wait(Waiting(push.reason, push.text, push.until))

    def has_room(self) -> None:
        """Ask again after a grant of nothing: a bucket of this client has ended."""
        self._full = False
        self.nudge()

    def fail(self, why: CoordinatorError) -> None:
        """Raise `why` to the one who iterates."""
        self._failure = why
        self._changed.set()

    def stop(self) -> None:
        """Ask no more, and end the iteration once the arrived buckets are taken."""
        self.stopped = True
        self._changed.set()
        self.nudge()

    async def withdraw(self) -> None:
        """Stop, and take back the asks that are not served yet.

        Raises:
            Refused, SessionEnded: as every request.
        """
        self.stop()
        session = self._reconnector.current
        if self._pending and session is not None:
            await session.request(Ask(service=self.service, count=0), Asked, self._asked)

    async def run(self) -> None:
        """Ask whenever more buckets are wanted than are under way; runs until `stop`."""
        backoff = Backoff()
        while not self.stopped:
            await self._nudged.wait()
            self._nudged.clear()

            session = self._reconnector.current
            short = min(self.wanted() - self._pending, self._max_per_ask)
            if session is None or short <= 0 or not self._may_ask():
                continue

            try:
                await session.request(Ask(service=self.service, count=short), Asked, partial(self._granted, short))
                backoff.reset()
            except SessionEnded:
                continue  # the welcome of the next session nudges
            except Refused as refused:
                await self._refused(refused, backoff)

    def _may_ask(self) -> bool:
        if self.stopped or self._paused or self._full or self._failure is not None:
            return False
        return self._state == "active" and not self._reconnector.draining

    def _asked(self, asked: Asked) -> None:
        self._pending = asked.pending

    def _granted(self, short: int, asked: Asked) -> None:
        self._pending = asked.pending
        self._note_limit(asked.limit)
        self._note_wait(asked.waiting)
        if asked.pending:
            asyncio.get_running_loop().call_later(_SILENT_WAIT, self._tell_of_wait, self._waits)
        if asked.count >= short:
            self.nudge()  # more is wanted than one ask may name
        elif asked.pending == 0:
            log.debug("%s: the server grants nothing: this client holds all that it may", self.service)
            self._full = True
            asyncio.get_running_loop().call_later(_ASK_INTERVAL_WHEN_FULL, self.has_room)

    def _tell_of_wait(self, waits: int) -> None:
        """Say that nothing has come since the ask before which so many buckets had."""
        if waits == self._waits and self._pending and not self.stopped:
            self._waits += 1  # told once
            if self.waiting is None:
                log.info("%s: waiting; the server has nothing for this client now, and sends it at once", self.service)
            else:
                self._tell_reason(self.waiting)

    def _note_wait(self, waiting: Waiting | None) -> None:
        """Remember why nothing comes, and say it if the volunteer should know at once."""
        self.waiting = waiting
        if waiting is not None and waiting.reason in TOLD_AT_ONCE:
            self._tell_reason(waiting)

    def _tell_reason(self, waiting: Waiting) -> None:
        """Say why nothing comes, once until another reason was told or all has come."""
        if waiting.reason != self._told_reason:
            self._told_reason = waiting.reason
            log.info("%s: %s", self.service, words_for(waiting, datetime.now().astimezone()))

    def _note_limit(self, limit: int) -> None:
        """Say that the server has begun, or ceased, to hand out one bucket at a time to this client."""
        before, self._limit = self._limit, limit
        if limit == 1 and before is None and self._max_per_ask > 1:
            log.info("%s: one bucket at a time: the service is set so, or this client is flagged there", self.service)
        elif limit == 1 and before is not None and before > 1:
            log.warning(
                "%s: the server hands out one bucket at a time to this client now: its work there is flagged, until "
                "three buckets in a row are settled; the server's operator can say why",
                self.service,
            )
        elif before == 1 and limit > 1:
            log.warning("%s: the server hands out more than one bucket at a time again", self.service)

    async def _refused(self, refused: Refused, backoff: Backoff) -> None:
        if refused.code == "client_deactivated" and refused.detail.get("reason") == "idle":
            try:
                await self._reconnector.request(Activate(service=self.service), Activated)
            except CoordinatorError as failure:
                self.fail(failure)
            self.nudge()
        elif refused.code == "service_revoked":
            self._state = "revoked"  # a push says when it is back
        elif refused.code in _TRANSIENT_ASK_REFUSALS:
            wait = backoff.next(refused.retry_after or 0.0)
            log.info("%s: %s Asking again in %.1f s.", self.service, refused, wait)
            self._pause(wait)
        elif refused.code != "draining":
            self.fail(refused)

    def _pause(self, seconds: float) -> None:
        """Ask nothing for so many seconds."""
        self._paused = True
        asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = False
        self.nudge()
