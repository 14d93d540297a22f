"""What the client holds: kept true to what the server says, and sent when it is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from msgspec import Raw

from coordinator.client.bucket import Bucket
from coordinator.client.intake import Intake
from coordinator.client.link import Link
from coordinator.client.session import SessionEnded
from coordinator.client.spool import Spool
from coordinator.errors import Refused
from coordinator.wire import client as wire
from coordinator.wire.frames import Push

log = logging.getLogger("coordinator.client")

_MOST_HOLDS = 400
"""Buckets that a hello names; more would not fit into what the server reads before it knows the client."""

_DEAD_SHARE = 1 / 3
"""Part of `dead_after` after which results wait no longer for others, however long they might."""


class Holdings:
    """All buckets of one client.  The link tells it what happens; it tells the intakes and the buckets."""

    link: Link
    limits: wire.Limits

    def __init__(self, spool: Spool, flush_every: float) -> None:
        self.spool = spool
        self.held: dict[str, Bucket] = {}
        self.welcome: wire.Welcome | None = None
        self._flush_every = flush_every
        self._intakes: dict[str, Intake] = {}
        self._unclaimed: list[Bucket] = []
        self._regranting: set[str] = set()
        self._stirred = asyncio.Event()
        self._busy: set[Bucket] = set()

    def count(self, service: str) -> int:
        """Buckets of a service that are not done with."""
        return sum(bucket.service == service for bucket in self.held.values())

    def intake(self, service: str) -> Intake | None:
        """The intake of a service, if it goes on."""
        intake = self._intakes.get(service)
        return intake if intake is not None and not intake.stopped else None

    def add(self, intake: Intake) -> None:
        """Buckets of its service go to this intake from now on, those that came before it included."""
        self._intakes[intake.service] = intake
        if self.welcome is not None and self.link.current is not None:
            intake.welcomed(self.welcome)
        if self.link.failure is not None:
            intake.fail(self.link.failure)
        waiting, self._unclaimed = self._unclaimed, []
        for bucket in waiting:
            self._deliver(bucket, asked=False)

    # What the link tells, in the order of the wire.

    def holds(self) -> list[wire.Hold] | None:
        """Of this run and, by the spool, of one before that did not end well."""
        if not self.spool.held and self.welcome is None:
            return None
        named = list(self.spool.held.items())[-_MOST_HOLDS:]
        return [wire.Hold(bucket_id, held.claim) for bucket_id, held in named]

    def welcomed(self, welcome: wire.Welcome) -> None:
        """Sort what was held into what is about to be ours again and what is not."""
        self.welcome = welcome
        self.limits = welcome.limits
        recollected = welcome.recollected
        self._regranting = set(recollected.regranted) if isinstance(recollected, wire.Recollection) else set()
        for bucket_id, held in list(self.spool.held.items()):
            if bucket_id not in self._regranting:
                bucket = self.held.get(bucket_id) or self._revive(bucket_id, held.service, held.claim)
                bucket.lose("the server dropped it while the connection was cut", last_word=True)
        for intake in self._intakes.values():
            intake.welcomed(welcome)

    def pushed(self, push: Push) -> None:
        """One push of the server."""
        match push:
            case wire.Bucket():
                self._granted(push)
            case wire.BucketLost():
                bucket = self.held.get(push.bucket_id)
                if bucket is not None and bucket.claim == push.claim:
                    bucket.lose(push.reason)
            case wire.BucketDead():
                log.warning("bucket %s is held too long; released in %g s", push.bucket_id, push.release_after)
                self._hurry()  # one settled item brings it back to life
            case wire.ServiceChanged():
                if push.service in self._intakes:
                    self._intakes[push.service].changed(push.state)
            case wire.LimitsChanged():
                self.limits = push.limits
            case wire.Drain():
                log.warning("the server drains (%s); back in %g s", push.reason, push.retry_after)
                self._hurry()
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
        for intake in self._intakes.values():
            intake.fail(why)

    # What the buckets tell.

    def stir(self) -> None:
        """A bucket may have something to send."""
        self._stirred.set()

    def ended(self, bucket: Bucket) -> None:
        """A bucket is done with."""
        if self.held.get(bucket.bucket_id) is bucket:
            del self.held[bucket.bucket_id]
            self.spool.end(bucket.bucket_id)
        if bucket.service in self._intakes:
            self._intakes[bucket.service].nudge()

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
                        self._busy.add(bucket)
                        sends.create_task(self._send(bucket), name=f"send {bucket.bucket_id}")
                    elif due is not None:
                        soonest = due if soonest is None else min(soonest, due)
                try:
                    async with asyncio.timeout_at(soonest):
                        await self._stirred.wait()
                except TimeoutError:
                    continue
                self._stirred.clear()

    async def give_back(self) -> None:
        """Withdraw what was asked for, submit what is known, and let the rest go to others."""
        if self.link.current is None or self.link.failure is not None:
            return
        async with asyncio.TaskGroup() as sends:
            for intake in self._intakes.values():
                sends.create_task(_attempt(intake.withdraw()))
            for bucket in list(self.held.values()):
                sends.create_task(_attempt(bucket.send(True)))

    def _sendable(self) -> list[Bucket]:
        if self.link.failure is not None:
            return []
        return [bucket for bucket in self.held.values() if not (bucket.in_hand or bucket in self._busy)]

    def _due(self, bucket: Bucket, now: float) -> float | None:
        """When the bucket's next submit should go, in the loop's time."""
        if bucket.complete or bucket.lost.is_set():
            return now
        if not bucket.kept:
            return None
        if bucket.due is None:
            bucket.due = now + min(self._flush_every, bucket.dead_after * _DEAD_SHARE)
        return bucket.due

    def _hurry(self) -> None:
        for bucket in self.held.values():
            bucket.due = 0.0
        self.stir()

    async def _send(self, bucket: Bucket) -> None:
        try:
            await _attempt(bucket.send(bucket.complete))
        finally:
            self._busy.discard(bucket)
            self.stir()

    def _granted(self, push: wire.Bucket) -> None:
        again = push.bucket_id in self._regranting
        self._regranting.discard(push.bucket_id)
        known = self.held.get(push.bucket_id)
        self.spool.hold(push.bucket_id, push.service, push.claim)
        if known is not None and known.is_cut:
            known.regrant(push)
            return
        if known is not None:
            known.replace()
        bucket = self.held[push.bucket_id] = Bucket(self, push)
        bucket.recall(set(bucket.unsettled))  # an earlier run may have left results of it
        bucket.items = [one for one in bucket.items if one["item"] in bucket.unsettled]
        log.info("%r: %d items", bucket, len(bucket.items))
        self._deliver(bucket, asked=not again)

    def _deliver(self, bucket: Bucket, *, asked: bool) -> None:
        intake = self._intakes.get(bucket.service)
        if intake is not None:
            intake.take(bucket, asked=asked)
        else:
            self._unclaimed.append(bucket)
        self.stir()

    def _revive(self, bucket_id: str, service: str, claim: int) -> Bucket:
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
        bucket = self.held[bucket_id] = Bucket(self, push)
        return bucket


async def _attempt(request: Awaitable[object]) -> None:
    """Nobody waits for this one's outcome; the log has it."""
    try:
        await request
    except Refused as refused:
        log.warning("%s", refused)
    except SessionEnded as ended:
        log.info("%s", ended)
