"""A bucket that the client holds: its results are collected and submitted here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

import msgspec

from coordinator.client.backoff import Backoff
from coordinator.client.reconnector import TRANSIENT_REFUSALS, Reconnector
from coordinator.client.result_parts import fill_message, reason_with_field, split_result
from coordinator.client.session import Session, SessionEnded
from coordinator.client.spool import Spool, SpooledResult
from coordinator.errors import Refused
from coordinator.wire import client as wire
from coordinator.wire.frames import Limits
from coordinator.wording import counted

log = logging.getLogger("coordinator.client")

_items_decoder: msgspec.json.Decoder[list[dict[str, Any]]] = msgspec.json.Decoder(list[dict[str, Any]])
_MAX_INTERNAL_ATTEMPTS = 5
"""`internal` refusals in a row after which the message itself is taken to be at fault."""


_REASONS_SHOWN = 3

RESULT_REFUSALS = frozenset({"bad_result", "unassigned_items", "conflict"})
"""Refusals of some results, which the bucket drops and tells of itself."""


class LostEvent(asyncio.Event):
    """Set when the client does not hold the bucket any more; `reason` says why."""

    reason = ""


class BucketOwner(Protocol):
    """The client, as its buckets see it."""

    reconnector: Reconnector
    spool: Spool
    limits: Limits

    def send_soon(self) -> None:
        """Submit soon: a bucket has something to send."""

    def bucket_ended(self, bucket: HeldBucket) -> None:
        """Forget a bucket that has ended."""


class HeldBucket:
    """A bucket that this client holds.

    `items` are objects with `item` (integer), `key` and attributes: those that are not settled yet.
    `stored` counts the results that the server has taken, and `refused` says why it has not taken those
    of `refused_items`, `fault` why the checker has failed over `faulty_items`.
    `dead_after` and `release_after` are seconds: the server waits that long for a settled item.  `lost` is set
    as soon as this client does not hold the bucket any more; then checking its items is useless.  `ended` is
    set when the client has no more to do for it, lost or finished.
    """

    def __init__(self, owner: BucketOwner, push: wire.Bucket) -> None:
        self.service = push.service
        self.bucket_id = push.bucket_id
        self.claim = push.claim
        self.attempt = push.attempt
        self.dead_after = push.dead_after
        self.release_after = push.release_after

        self.items = _items_decoder.decode(push.items)
        self.unsettled = {one["item"] for one in self.items}
        self.lost = LostEvent()
        self.ended = asyncio.Event()
        self.due: float | None = None
        self.sends_by_caller = 0
        self.stored = 0
        self.refused = ""
        self.refused_items: set[int] = set()
        self.fault = ""
        self.faulty_items: set[int] = set()

        self._owner = owner
        self._skipped: set[int] = set()
        self._granted = asyncio.Event()
        self._granted.set()
        self._sending = asyncio.Lock()
        self._one_by_one = False

    def __repr__(self) -> str:
        return f"<bucket {self.bucket_id} of {self.service}, claim {self.claim}>"

    def __str__(self) -> str:
        return f"{self.service}: bucket {self.bucket_id}"

    @property
    def complete(self) -> bool:
        """Tell whether each item is settled or skipped, so that nothing more will come."""
        return self.unsettled <= self._skipped

    @property
    def unacknowledged(self) -> list[SpooledResult]:
        """The results that the server has not acknowledged, oldest first."""
        spooled = self._owner.spool.buckets.get(self.bucket_id)
        return list(spooled.results.values()) if spooled is not None and not self.ended.is_set() else []

    async def settle(self, item: int, /, **result: Any) -> None:
        """Keep the result of one item on disk, where it survives a crash; it is sent soon, with others.

        When every item is settled or skipped, the bucket is submitted as a whole and ends.  On a lost bucket
        nothing happens.

        Raises:
            ValueError: the item is not in this bucket, or its result is larger than any message.
            TypeError: the result has a value that JSON cannot express.
        """
        if self._add(item, result):
            await self._sync()
            self._owner.send_soon()

    def skip(self, item: int, /, fault: str = "") -> None:
        """Leave one item unsettled; it goes back to the server when the rest is submitted.

        `fault` says what is wrong with the checker, if it is that and not the item.
        """
        self._skipped.add(item)
        if fault:
            self.fault = fault
            self.faulty_items.add(item)
        self._owner.send_soon()

    async def submit(self, results: Iterable[dict[str, Any]] = (), *, final: bool = True) -> wire.Stored | None:
        """Send what is settled, and these results (objects with `item`) with it.

        `final` ends the bucket: items without a result go back.  Returns the last answer, or None if there was
        nothing to send.  Waits for the connection, and repeats what a busy server has refused.

        Raises:
            Refused: with the code `bad_result`, `unassigned_items` or `conflict`, some results were dropped
                and all others are stored; with any other code the bucket is lost.
            ValueError, TypeError: as `settle`.
            SessionEnded: the client will not connect again.
        """
        self.sends_by_caller += 1  # `send_due` leaves the bucket alone: this caller gets the server's answer
        try:
            for result in results:
                self._add(result["item"], {name: value for name, value in result.items() if name != "item"})

            await self._sync()
            return await self.send(final)
        finally:
            self.sends_by_caller -= 1
            self._owner.send_soon()

    async def release(self, reason: str | None = None) -> None:
        """Send what is settled, and give the rest back at once, at the cost that the server puts on that.

        Raises:
            Refused: as `submit`.
            SessionEnded: the client will not connect again.
        """
        await self.send(False)

        backoff = Backoff()
        while not self.ended.is_set():
            session = await self._granted_session()
            release = wire.Release(bucket_id=self.bucket_id, claim=self.claim, reason=reason)
            try:
                await session.request(release, wire.Released, self._released)
            except SessionEnded:
                await self._owner.reconnector.wait_until_ended(session)
            except Refused as refused:
                await self._wait_or_lose(refused, backoff)

    async def send(self, final: bool) -> wire.Stored | None:
        """Send the unacknowledged results, in as many messages as they need; raises as `submit`."""
        backoff = Backoff()
        fault: Refused | None = None
        answer: wire.Stored | None = None

        async with self._sending:
            self.due = None
            while not self.ended.is_set():
                session = await self._granted_session()
                waiting = self.unacknowledged
                batch = list(fill_message(waiting, self._owner.limits.max_message_bytes, singly=self._one_by_one))
                last = final and len(batch) == len(waiting) and not self.lost.is_set()

                if not batch and not last:
                    if self.lost.is_set():
                        self._end()
                    break

                message = wire.Submit(
                    bucket_id=self.bucket_id,
                    claim=self.claim,
                    results=msgspec.Raw(b"[" + b",".join(one.raw for one in batch) + b"]"),
                    final=last,
                )

                try:
                    answer = await session.request(message, wire.Stored, partial(self._stored, batch, last))
                except SessionEnded:
                    await self._owner.reconnector.wait_until_ended(session)
                except Refused as refused:
                    dropped = self._drop(refused, batch)
                    if dropped is None:
                        await self._wait_or_lose(refused, backoff)
                    elif dropped:
                        fault = refused

        if fault is not None:
            raise fault
        return answer

    # The methods up to `abandon` are called by the owner, in the order in which the server speaks.

    def cut(self) -> None:
        """Suspend the claim when the connection ends, until the server grants the bucket again."""
        if not self.lost.is_set():
            self._granted.clear()

    @property
    def is_cut(self) -> bool:
        """Tell whether the claim waits to be granted again."""
        return not self._granted.is_set()

    def regrant(self, push: wire.Bucket) -> None:
        """Go on under a new claim, with the items that are still to be settled."""
        self.claim = push.claim
        self.items = _items_decoder.decode(push.items)
        remaining = {one["item"] for one in self.items}
        self.match_spool(remaining)
        self.unsettled &= remaining
        self._granted.set()
        self._owner.send_soon()

    def match_spool(self, remaining: set[int]) -> None:
        """Drop spooled results of items that are settled already; take the items of the others as settled."""
        settled = [result for result in self.unacknowledged if result.item not in remaining]
        self._owner.spool.forget(self.bucket_id, settled)
        self.unsettled -= {result.item for result in self.unacknowledged if result.settles}

    def lose(self, reason: str, *, send_once_more: bool = False) -> None:
        """Mark the bucket as lost, and end it.

        With `send_once_more` its results are sent first, under the old claim: if they are stored already, the
        server answers that they are.
        """
        if self.ended.is_set() or self.lost.is_set():
            return

        log.warning("%s is lost: %s", self, reason)
        self.lost.reason = reason
        self.lost.set()
        self._granted.set()

        if send_once_more and self.unacknowledged:
            self._owner.send_soon()
        else:
            self._end()

    def forget_results(self) -> None:
        """Drop the results that the server has not acknowledged: it would refuse them."""
        self._owner.spool.forget(self.bucket_id, self.unacknowledged)

    def replace(self) -> None:
        """End this bucket because the server granted it as a new one, which takes over the spooled results."""
        self.abandon("it was handed out anew")
        self.ended.set()

    def abandon(self, reason: str) -> None:
        """Mark the bucket as lost when the client will not connect again; its results stay on disk for a later run."""
        self.lost.reason = self.lost.reason or reason
        self.lost.set()
        self._granted.set()

    def _add(self, item: int, result: dict[str, Any]) -> bool:
        if self.lost.is_set() or self.ended.is_set():
            log.info("%s is not ours any more; the result of item %s is dropped", self, item)
            return False
        if item not in self.unsettled:
            raise ValueError(f"Item {item!r} is not among the unsettled items of this bucket.")

        for raw, settles in split_result(item, result, self._owner.limits.max_message_bytes):
            try:
                self._owner.spool.add_result(self.bucket_id, item, raw, settles)
            except OSError as failure:
                log.warning("a result of %s is not on disk: %s", self, failure)
            if settles:
                self.unsettled.discard(item)
        return True

    async def _sync(self) -> None:
        try:
            await self._owner.spool.sync()
        except OSError as failure:
            log.warning("results of %s are not on disk: %s", self, failure)

    async def _granted_session(self) -> Session:
        """Wait for a session in which the claim is granted, and return it."""
        while True:
            session = await self._owner.reconnector.session()
            await self._granted.wait()
            if session is self._owner.reconnector.current:
                return session

    def _stored(self, batch: list[SpooledResult], last: bool, stored: wire.Stored) -> None:
        self.stored += len(batch)
        self._owner.spool.forget(self.bucket_id, batch)
        if stored.closed or last:
            self._done(stored.remaining)

    def _released(self, released: wire.Released) -> None:
        self._done(released.remaining)

    def _done(self, remaining: int) -> None:
        log.info("%s is done: %d stored, %d go back", self, self.stored, remaining)
        self._end()

    def _drop(self, refused: Refused, batch: list[SpooledResult]) -> list[SpooledResult] | None:
        """Drop the results that the server will never store, and return them; None if it refused something else."""
        reasons: dict[object, object] = {}
        if refused.code == "bad_result":
            errors = [error for error in refused.detail.get("errors") or () if isinstance(error, dict)]
            reasons = {error.get("item"): reason_with_field(error) for error in errors}
            blamed = set(reasons)
        elif refused.code in ("unassigned_items", "conflict"):
            items = refused.detail.get("items")
            blamed = {item for item in items if isinstance(item, int)} if isinstance(items, list) else set()
        else:
            return None

        bad = [result for result in batch if result.item in blamed]
        if not bad and len(batch) > 1:
            self._one_by_one = True  # the server does not say which one; sent one by one, the good ones are stored
            return []

        bad = bad or batch
        self._tell_refused(refused, {result.item: str(reasons.get(result.item, refused)) for result in bad})
        self._owner.spool.forget(self.bucket_id, bad)
        return bad

    def _tell_refused(self, refused: Refused, reasons: dict[int, str]) -> None:
        """Log why results are dropped, once a bucket: each kind of reason, with one item that has it."""
        first = not self.refused_items
        self.refused_items |= reasons.keys()
        kinds: dict[str, int] = {}
        for item, reason in reasons.items():
            kinds.setdefault(reason, item)

        shown = "; ".join(f"item {item}: {reason}" for reason, item in list(kinds.items())[:_REASONS_SHOWN])
        self.refused = f"{refused.code}: {shown}{'; …' if len(kinds) > _REASONS_SHOWN else ''}"
        if first:
            more = refused.detail.get("more")
            count = len(reasons) + (more if isinstance(more, int) else 0)
            log.warning("%s: refused and dropped, %s: %s", self, counted(count, "result"), self.refused)

    async def _wait_or_lose(self, refused: Refused, backoff: Backoff) -> None:
        """Wait after a transient refusal; on any other, end the bucket as lost and raise."""
        may_pass = refused.code == "internal" and backoff.tries < _MAX_INTERNAL_ATTEMPTS
        if refused.code not in TRANSIENT_REFUSALS and not may_pass:
            self.lose(str(refused))
            self._end()
            raise refused

        wait = backoff.next(refused.retry_after or 0.0)
        log.warning("%s Sending %s again in %.1f s.", refused, self, wait)
        await asyncio.sleep(wait)

    def _end(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self._owner.bucket_ended(self)
