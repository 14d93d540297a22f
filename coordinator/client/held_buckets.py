"""The buckets that the client holds: updated by the server's pushes, and submitted when they are due."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Iterator

from msgspec import Raw

from coordinator.client.bucket_stream import BucketStream
from coordinator.client.held_bucket import RESULT_REFUSALS, HeldBucket
from coordinator.client.notice_board import NoticeBoard
from coordinator.client.reconnector import Reconnector
from coordinator.client.session import SessionEnded
from coordinator.client.spool import Spool
from coordinator.errors import CoordinatorError, Refused
from coordinator.wire import client as wire
from coordinator.wire.frames import Limits, Push

log = logging.getLogger("coordinator.client")

_MAX_HOLDS = 400
"""Buckets that a `hello` names; more would exceed the bytes that the server reads before it knows the client."""

MAX_USELESS_BUCKETS = 3
"""Buckets in a row of which nothing was stored before this client stops: the server flags one that goes on."""

_MAX_USELESS_ITEMS = 10_000
"""Items that are remembered for having been of no use."""

_FLUSH_SHARE_OF_DEAD_AFTER = 1 / 3
"""Share of `dead_after` after which results are sent at the latest, even if they could wait longer for others."""


class CheckerUseless(CoordinatorError):
    """Raised to the one who works for a service when its checker fails over all items, or the server refuses it all."""


class HeldBuckets:
    """All buckets of one client.  The reconnector reports what happens, and this class tells streams and buckets."""

    reconnector: Reconnector
    limits: Limits

    def __init__(self, spool: Spool, flush_every: float) -> None:
        self.spool = spool
        self.held: dict[str, HeldBucket] = {}
        self.welcome: wire.Welcome | None = None
        self.notice_board = NoticeBoard()
        self._flush_every = flush_every
        self._streams: dict[str, BucketStream] = {}
        self._undelivered: list[HeldBucket] = []
        self._regranting: set[str] = set()
        self._send_wanted = asyncio.Event()
        self._sending: set[HeldBucket] = set()
        self._useless_in_a_row: Counter[str] = Counter()
        self._useless_items: set[int] = set()
        self._proven: set[str] = set()
        self._given_up: set[str] = set()

    def count(self, service: str) -> int:
        """Count the buckets of a service that have not ended."""
        return sum(bucket.service == service for bucket in self.held.values())

    def stream(self, service: str) -> BucketStream | None:
        """Return the stream of a service unless it was stopped."""
        stream = self._streams.get(service)
        return stream if stream is not None and not stream.stopped else None

    def add(self, stream: BucketStream) -> None:
        """Deliver the buckets of the stream's service to it, also those that came before it."""
        self._streams[stream.service] = stream
        if self.welcome is not None and self.reconnector.current is not None:
            stream.welcomed(self.welcome)
        if self.reconnector.failure is not None:
            stream.fail(self.reconnector.failure)

        waiting, self._undelivered = self._undelivered, []
        for bucket in waiting:
            self._deliver(bucket, asked=False)

    # SessionListener: called by the reconnector, in the order in which the server speaks.

    def holds(self) -> list[wire.Hold] | None:
        """Name the buckets held by this run and, from the spool, by a run before that crashed."""
        if not self.spool.buckets and self.welcome is None:
            return None
        named = list(self.spool.buckets.items())[-_MAX_HOLDS:]
        return [wire.Hold(bucket_id, held.claim) for bucket_id, held in named]

    def welcomed(self, welcome: wire.Welcome) -> None:
        """Begin a session: note which held buckets the server will grant again, and lose the others."""
        self.welcome = welcome
        self.limits = welcome.limits
        self.notice_board.replace(welcome.notices)

        recollected = welcome.recollected
        self._regranting = set(recollected.regranted) if isinstance(recollected, wire.Recollection) else set()
        for bucket_id, held in list(self.spool.buckets.items()):
            if bucket_id not in self._regranting:
                bucket = self.held.get(bucket_id) or self._restore(bucket_id, held.service, held.claim)
                bucket.lose("the server dropped it while the connection was cut", send_once_more=True)

        for stream in self._streams.values():
            stream.welcomed(welcome)

    def pushed(self, push: Push) -> None:
        """Apply one push of the server."""
        match push:
            case wire.Bucket():
                self._add_granted(push)
            case wire.BucketLost():
                bucket = self.held.get(push.bucket_id)
                if bucket is not None and bucket.claim == push.claim:
                    bucket.lose(push.reason)
            case wire.BucketDead():
                log.warning("bucket %s is held too long; released in %g s", push.bucket_id, push.release_after)
                self._send_all_now()  # one settled item makes it live again

            case wire.ServiceChanged():
                if push.service in self._streams:
                    self._streams[push.service].changed(push.state)
            case wire.LimitsChanged():
                self.limits = push.limits
            case wire.WaitChanged():
                if push.service in self._streams:
                    self._streams[push.service].waits(push)

            case wire.Notice():
                self.notice_board.add(push)
            case wire.Drain():
                log.warning("the server drains (%s); back in %g s", push.reason, push.retry_after)
                self._send_all_now()
            case _:
                log.warning("a push that this client does not know")

    def cut(self) -> None:
        """Suspend all claims until the server grants them again."""
        for bucket in self.held.values():
            bucket.cut()

    def failed(self, why: SessionEnded) -> None:
        """Abandon everything: the client will not connect again."""
        for bucket in self.held.values():
            bucket.abandon(str(why))
        for stream in self._streams.values():
            stream.fail(why)

    # BucketOwner: called by the buckets.

    def send_soon(self) -> None:
        """Have `send_due` look at the buckets again."""
        self._send_wanted.set()

    def bucket_ended(self, bucket: HeldBucket) -> None:
        """Forget a bucket that has ended, and let its service ask for another."""
        if self.held.get(bucket.bucket_id) is bucket:
            del self.held[bucket.bucket_id]
            self.spool.remove_bucket(bucket.bucket_id)
        stream = self._streams.get(bucket.service)
        if stream is not None:
            stream.has_room()
            self._count_useless(bucket, stream)

    def _count_useless(self, bucket: HeldBucket, stream: BucketStream) -> None:
        """Give up on a service once nothing of several buckets in a row was of use, which the server flags clients for.

        Items that were of no use before say nothing new: the last of a campaign may be those that nobody can check.
        """
        if bucket.stored:
            self._proven.add(bucket.service)
            self._useless_in_a_row.pop(bucket.service, None)
        items = bucket.refused_items | bucket.faulty_items
        is_news = bool(items - self._useless_items)

        self._useless_items |= items
        if len(self._useless_items) > _MAX_USELESS_ITEMS:
            self._useless_items.clear()
        if bucket.stored or not is_news:
            return

        self._useless_in_a_row[bucket.service] += 1
        if self._useless_in_a_row[bucket.service] >= MAX_USELESS_BUCKETS:
            self._given_up.add(bucket.service)
            stream.fail(CheckerUseless(_sentence(bucket)))

    async def send_due(self) -> None:
        """Submit each bucket once it is complete, and its results earlier once they have waited long; never returns."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as sends:
            while True:
                soonest: float | None = None
                now = loop.time()
                for bucket in self._sendable():
                    due = self._due(bucket, now)
                    if due is not None and due <= now:
                        self._sending.add(bucket)
                        sends.create_task(self._send(bucket), name=f"send {bucket.bucket_id}")
                    elif due is not None:
                        soonest = due if soonest is None else min(soonest, due)

                try:
                    async with asyncio.timeout_at(soonest):
                        await self._send_wanted.wait()
                except TimeoutError:
                    continue

                self._send_wanted.clear()

    async def give_back(self) -> None:
        """Withdraw all asks, submit all known results, and give the unsettled items back."""
        if self.reconnector.current is None or self.reconnector.failure is not None:
            return

        async with asyncio.TaskGroup() as sends:
            for stream in self._streams.values():
                sends.create_task(_log_failure(stream.withdraw()))
            for bucket in list(self.held.values()):
                if bucket.service in self._given_up:
                    bucket.forget_results()
                sends.create_task(_log_failure(bucket.send(True)))

    def _sendable(self) -> Iterator[HeldBucket]:
        if self.reconnector.failure is not None:
            return iter(())
        return (bucket for bucket in list(self.held.values()) if self._may_send(bucket))  # each is asked in its turn

    def _may_send(self, bucket: HeldBucket) -> bool:
        """Tell whether a bucket may be submitted: one at a time until the server has taken a result of its service."""
        if bucket.sends_by_caller or bucket in self._sending or bucket.service in self._given_up:
            return False
        return bucket.service in self._proven or all(other.service != bucket.service for other in self._sending)

    def _due(self, bucket: HeldBucket, now: float) -> float | None:
        """Return when the bucket's next submit is due, in the loop's time; None if it has nothing to send."""
        if bucket.complete or bucket.lost.is_set():
            return now
        if not bucket.unacknowledged:
            return None
        if bucket.due is None:
            bucket.due = now + min(self._flush_every, bucket.dead_after * _FLUSH_SHARE_OF_DEAD_AFTER)
        return bucket.due

    def _send_all_now(self) -> None:
        for bucket in self.held.values():
            bucket.due = 0.0
        self.send_soon()

    async def _send(self, bucket: HeldBucket) -> None:
        try:
            await _log_failure(bucket.send(bucket.complete))
        finally:
            self._sending.discard(bucket)
            self.send_soon()

    def _add_granted(self, push: wire.Bucket) -> None:
        """Take a bucket that the server grants: a new one, one held before the cut, or one of an earlier run."""
        again = push.bucket_id in self._regranting
        self._regranting.discard(push.bucket_id)
        known = self.held.get(push.bucket_id)
        self.spool.add_bucket(push.bucket_id, push.service, push.claim)
        if known is not None and known.is_cut:
            known.regrant(push)
            return
        if known is not None:
            known.replace()

        bucket = self.held[push.bucket_id] = HeldBucket(self, push)
        bucket.match_spool(set(bucket.unsettled))  # an earlier run may have left results of it
        bucket.items = [item for item in bucket.items if item["item"] in bucket.unsettled]
        log.info("%s: %d to check", bucket, len(bucket.items))
        self._deliver(bucket, asked=not again)

    def _deliver(self, bucket: HeldBucket, *, asked: bool) -> None:
        stream = self._streams.get(bucket.service)
        if stream is not None:
            stream.deliver(bucket, asked=asked)
        else:
            self._undelivered.append(bucket)
        self.send_soon()

    def _restore(self, bucket_id: str, service: str, claim: int) -> HeldBucket:
        """Make a bucket of an earlier run again, to send its results once more."""
        push = wire.Bucket(
            service=service,
            bucket_id=bucket_id,
            claim=claim,
            items=Raw(b"[]"),
            attempt=1,
            dead_after=0.0,
            release_after=0.0,
        )
        bucket = self.held[bucket_id] = HeldBucket(self, push)
        return bucket


def _sentence(bucket: HeldBucket) -> str:
    """Say what is wrong with the checker of a bucket that was of no use."""
    if bucket.refused:
        return (
            f"The server has refused all results of {MAX_USELESS_BUCKETS} buckets in a row: the checker does not give "
            f"what {bucket.service} wants. {bucket.refused}"
        )
    return f"The checker has failed over all items of {MAX_USELESS_BUCKETS} buckets of {bucket.service}: {bucket.fault}"


async def _log_failure(request: Awaitable[object]) -> None:
    """Await a request and log its failure, since no caller waits for its outcome."""
    try:
        await request
    except Refused as refused:
        told_already = refused.code in RESULT_REFUSALS
        log.log(logging.DEBUG if told_already else logging.WARNING, "%s", refused)
    except SessionEnded as ended:
        log.info("%s", ended)
