"""What the client holds: kept true to what the server says, and sent when it is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from msgspec import Raw

from coordinator.client.bucket_stream import BucketStream
from coordinator.client.held_bucket import HeldBucket
from coordinator.client.reconnector import Reconnector
from coordinator.client.session import SessionEnded
from coordinator.client.spool import Spool
from coordinator.errors import Refused
from coordinator.wire import client as wire
from coordinator.wire.frames import Push

log = logging.getLogger("coordinator.client")

_MAX_HOLDS = 400
"""Buckets that a hello names; more would not fit into what the server reads before it knows the client."""

_FLUSH_SHARE_OF_DEAD_AFTER = 1 / 3
"""Part of `dead_after` after which results wait no longer for others, however long they might."""


class HeldBuckets:
    """All buckets of one client.  The link tells it what happens; it tells the streams and the buckets."""

    reconnector: Reconnector
    limits: wire.Limits

    def __init__(self, spool: Spool, flush_every: float) -> None:
        self.spool = spool
        self.held: dict[str, HeldBucket] = {}
        self.welcome: wire.Welcome | None = None
        self._flush_every = flush_every
        self._streams: dict[str, BucketStream] = {}
        self._undelivered: list[HeldBucket] = []
        self._regranting: set[str] = set()
        self._send_wanted = asyncio.Event()
        self._sending: set[HeldBucket] = set()

    def count(self, service: str) -> int:
        """Buckets of a service that are not done with."""
        return sum(bucket.service == service for bucket in self.held.values())

    def stream(self, service: str) -> BucketStream | None:
        """The stream of a service, if it goes on."""
        stream = self._streams.get(service)
        return stream if stream is not None and not stream.stopped else None

    def add(self, stream: BucketStream) -> None:
        """Buckets of its service go to this stream from now on, those that came before it included."""
        self._streams[stream.service] = stream
        if self.welcome is not None and self.reconnector.current is not None:
            stream.welcomed(self.welcome)
        if self.reconnector.failure is not None:
            stream.fail(self.reconnector.failure)
        waiting, self._undelivered = self._undelivered, []
        for bucket in waiting:
            self._deliver(bucket, asked=False)

    # What the link tells, in the order of the wire.

    def holds(self) -> list[wire.Hold] | None:
        """Of this run and, by the spool, of one before that did not end well."""
        if not self.spool.buckets and self.welcome is None:
            return None
        named = list(self.spool.buckets.items())[-_MAX_HOLDS:]
        return [wire.Hold(bucket_id, held.claim) for bucket_id, held in named]

    def welcomed(self, welcome: wire.Welcome) -> None:
        """Sort what was held into what is about to be ours again and what is not."""
        self.welcome = welcome
        self.limits = welcome.limits
        recollected = welcome.recollected
        self._regranting = set(recollected.regranted) if isinstance(recollected, wire.Recollection) else set()
        for bucket_id, held in list(self.spool.buckets.items()):
            if bucket_id not in self._regranting:
                bucket = self.held.get(bucket_id) or self._restore(bucket_id, held.service, held.claim)
                bucket.lose("the server dropped it while the connection was cut", last_word=True)
        for stream in self._streams.values():
            stream.welcomed(welcome)

    def pushed(self, push: Push) -> None:
        """One push of the server."""
        match push:
            case wire.Bucket():
                self._add_granted(push)
            case wire.BucketLost():
                bucket = self.held.get(push.bucket_id)
                if bucket is not None and bucket.claim == push.claim:
                    bucket.lose(push.reason)
            case wire.BucketDead():
                log.warning("bucket %s is held too long; released in %g s", push.bucket_id, push.release_after)
                self._send_all_now()  # one settled item brings it back to life
            case wire.ServiceChanged():
                if push.service in self._streams:
                    self._streams[push.service].changed(push.state)
            case wire.LimitsChanged():
                self.limits = push.limits
            case wire.Drain():
                log.warning("the server drains (%s); back in %g s", push.reason, push.retry_after)
                self._send_all_now()
            case _:
                log.warning("a push that this client does not know")

    def cut(self) -> None:
        """All claims wait to be granted anew."""
        for bucket in self.held.values():
            bucket.cut()

    def failed(self, why: SessionEnded) -> None:
        """There is no way to the server any more."""
        for bucket in self.held.values():
            bucket.abandon(str(why))
        for stream in self._streams.values():
            stream.fail(why)

    # What the buckets tell.

    def send_soon(self) -> None:
        """A bucket may have something to send."""
        self._send_wanted.set()

    def bucket_ended(self, bucket: HeldBucket) -> None:
        """A bucket is done with."""
        if self.held.get(bucket.bucket_id) is bucket:
            del self.held[bucket.bucket_id]
            self.spool.remove_bucket(bucket.bucket_id)
        if bucket.service in self._streams:
            self._streams[bucket.service].nudge()

    async def send_due(self) -> None:
        """Submit each bucket when it is complete, and its results in parts when they have waited long."""
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
        """Withdraw what was asked for, submit what is known, and let the rest go to others."""
        if self.reconnector.current is None or self.reconnector.failure is not None:
            return
        async with asyncio.TaskGroup() as sends:
            for stream in self._streams.values():
                sends.create_task(_log_failure(stream.withdraw()))
            for bucket in list(self.held.values()):
                sends.create_task(_log_failure(bucket.send(True)))

    def _sendable(self) -> list[HeldBucket]:
        if self.reconnector.failure is not None:
            return []
        return [bucket for bucket in self.held.values() if not (bucket.sends_by_caller or bucket in self._sending)]

    def _due(self, bucket: HeldBucket, now: float) -> float | None:
        """When the bucket's next submit should go, in the loop's time."""
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
        bucket.recall(set(bucket.unsettled))  # an earlier run may have left results of it
        bucket.items = [one for one in bucket.items if one["item"] in bucket.unsettled]
        log.info("%r: %d items", bucket, len(bucket.items))
        self._deliver(bucket, asked=not again)

    def _deliver(self, bucket: HeldBucket, *, asked: bool) -> None:
        stream = self._streams.get(bucket.service)
        if stream is not None:
            stream.take(bucket, asked=asked)
        else:
            self._undelivered.append(bucket)
        self.send_soon()

    def _restore(self, bucket_id: str, service: str, claim: int) -> HeldBucket:
        """A bucket of an earlier run, for a last word about its results."""
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


async def _log_failure(request: Awaitable[object]) -> None:
    """Nobody waits for this one's outcome; the log has it."""
    try:
        await request
    except Refused as refused:
        log.warning("%s", refused)
    except SessionEnded as ended:
        log.info("%s", ended)
