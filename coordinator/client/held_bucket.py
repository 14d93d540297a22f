"""One bucket of work in the client's hands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

import msgspec

from coordinator.client.backoff import Backoff
from coordinator.client.reconnector import TRANSIENT_REFUSALS, Reconnector
from coordinator.client.result_parts import fill_message, split_result
from coordinator.client.session import Session, SessionEnded
from coordinator.client.spool import Spool, SpooledResult
from coordinator.errors import Refused
from coordinator.wire import client as wire

log = logging.getLogger("coordinator.client")

_items_decoder: msgspec.json.Decoder[list[dict[str, Any]]] = msgspec.json.Decoder(list[dict[str, Any]])
_MAX_INTERNAL_ATTEMPTS = 5
"""A fault of the server may pass; one that comes back so often is of the message."""


class LostEvent(asyncio.Event):
    """Set when the bucket is not ours any more; `reason` says why."""

    reason = ""


class BucketOwner(Protocol):
    """Who owns the buckets: the client."""

    reconnector: Reconnector
    spool: Spool
    limits: wire.Limits

    def send_soon(self) -> None:
        """A bucket has something to send."""

    def bucket_ended(self, bucket: HeldBucket) -> None:
        """A bucket is done with."""


class HeldBucket:
    """A bucket that this client holds.

    `items` are objects with `item` (integer), `key` and attributes: those that are not settled yet.
    `dead_after` and `release_after` are seconds: so long the server waits for a settled item.  `lost` is set
    as soon as the bucket is not ours any more; to check its items further is in vain.  `ended` is set when
    the client is done with it, lost or finished.
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
        self._owner = owner
        self._skipped: set[int] = set()
        self._granted = asyncio.Event()
        self._granted.set()
        self._sending = asyncio.Lock()
        self._one_by_one = False

    def __repr__(self) -> str:
        return f"<bucket {self.bucket_id} of {self.service}, claim {self.claim}>"

    @property
    def complete(self) -> bool:
        """Whether nothing more will come: each item is settled or left."""
        return self.unsettled <= self._skipped

    @property
    def unacknowledged(self) -> list[SpooledResult]:
        """The results that the server has not acknowledged, oldest first."""
        spooled = self._owner.spool.buckets.get(self.bucket_id)
        return list(spooled.results.values()) if spooled is not None and not self.ended.is_set() else []

    async def settle(self, item: int, /, **result: Any) -> None:
        """Keep the result of one item; it is sent soon, with others, and survives a crash from now on.

        When every item is settled or left, the bucket is submitted as a whole and ends.  On a lost bucket
        nothing happens.

        Raises:
            ValueError: the item is not in this bucket, or its result is larger than any message.
            TypeError: the result is not made of what JSON has.
        """
        if self._add(item, result):
            await self._sync()
            self._owner.send_soon()

    def skip(self, item: int, /) -> None:
        """Leave one item unsettled; it goes back to the server when the rest is submitted."""
        self._skipped.add(item)
        self._owner.send_soon()

    async def submit(self, results: Iterable[dict[str, Any]] = (), *, final: bool = True) -> wire.Stored | None:
        """Send what is settled, and these results (objects with `item`) with it.

        `final` ends the bucket: items without a result go back.  Returns the last answer, none if there was
        nothing to send.  Waits for the connection, and for a server that is short of breath.

        Raises:
            Refused: with the code `bad_result`, `unassigned_items` or `conflict`, some results were dropped
                and all others are stored; with any other code the bucket is lost.
            ValueError, TypeError: as `settle`.
            SessionEnded: there is no way to the server any more.
        """
        self.sends_by_caller += 1  # the outbox leaves it to us: our caller is to hear what the server says
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
            SessionEnded: there is no way to the server any more.
        """
        await self.send(False)
        backoff = Backoff()
        while not self.ended.is_set():
            session = await self._granted_session()
            release = wire.Release(bucket_id=self.bucket_id, claim=self.claim, reason=reason)
            try:
                await session.request(release, wire.Released, lambda _: self._end())
            except SessionEnded:
                await self._owner.reconnector.wait_until_ended(session)
            except Refused as refused:
                await self._wait_or_lose(refused, backoff)

    async def send(self, final: bool) -> wire.Stored | None:
        """Send what is unacknowledged, in as many messages as it takes; raises as `submit`."""
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

    # What the server says, told by the client in the order of the wire.

    def cut(self) -> None:
        """The connection ended: the claim counts no more until the server grants it anew."""
        if not self.lost.is_set():
            self._granted.clear()

    @property
    def is_cut(self) -> bool:
        """Whether the claim waits to be granted anew."""
        return not self._granted.is_set()

    def regrant(self, push: wire.Bucket) -> None:
        """The bucket is ours again, under a new claim, with the items that are still to be settled."""
        self.claim = push.claim
        self.items = _items_decoder.decode(push.items)
        remaining = {one["item"] for one in self.items}
        self.recall(remaining)
        self.unsettled &= remaining
        self._granted.set()
        self._owner.send_soon()

    def recall(self, remaining: set[int]) -> None:
        """Forget unacknowledged results of items that are settled already; count the others as ours."""
        settled = [one for one in self.unacknowledged if one.item not in remaining]
        self._owner.spool.forget(self.bucket_id, settled)
        self.unsettled -= {one.item for one in self.unacknowledged if one.settles}

    def lose(self, reason: str, *, last_word: bool = False) -> None:
        """The bucket is not ours any more.

        With `last_word` its results are sent once more under the old claim: they may be stored already, which
        the server then says, or it was a repeat.
        """
        if self.ended.is_set() or self.lost.is_set():
            return
        log.warning("%r is lost: %s", self, reason)
        self.lost.reason = reason
        self.lost.set()
        self._granted.set()
        if last_word and self.unacknowledged:
            self._owner.send_soon()
        else:
            self._end()

    def replace(self) -> None:
        """The server handed the bucket to us as new; what is unacknowledged of it goes to the new one."""
        self.abandon("it was handed out anew")
        self.ended.set()

    def abandon(self, reason: str) -> None:
        """There is no way to the server any more; what is on disk stays for a later run."""
        self.lost.reason = self.lost.reason or reason
        self.lost.set()
        self._granted.set()

    def _add(self, item: int, result: dict[str, Any]) -> bool:
        if self.lost.is_set() or self.ended.is_set():
            log.info("%r is not ours any more; the result of item %s is dropped", self, item)
            return False
        if item not in self.unsettled:
            raise ValueError(f"Item {item!r} is not among the unsettled items of this bucket.")
        for raw, settles in split_result(item, result, self._owner.limits.max_message_bytes):
            try:
                self._owner.spool.add_result(self.bucket_id, item, raw, settles)
            except OSError as failure:
                log.warning("a result of %r is not on disk: %s", self, failure)
            if settles:
                self.unsettled.discard(item)
        return True

    async def _sync(self) -> None:
        try:
            await self._owner.spool.sync()
        except OSError as failure:
            log.warning("results of %r are not on disk: %s", self, failure)

    async def _granted_session(self) -> Session:
        """The session under which the claim counts."""
        while True:
            session = await self._owner.reconnector.session()
            await self._granted.wait()
            if session is self._owner.reconnector.current:
                return session

    def _stored(self, batch: list[SpooledResult], last: bool, stored: wire.Stored) -> None:
        self._owner.spool.forget(self.bucket_id, batch)
        if stored.closed or last:
            log.info("%r is done: %d stored, %d go back", self, stored.stored, stored.remaining)
            self._end()

    def _drop(self, refused: Refused, batch: list[SpooledResult]) -> list[SpooledResult] | None:
        """Take out the results that the server will never take; nothing if they are not what it refused."""
        if refused.code == "bad_result":
            errors = refused.detail.get("errors") or ()
            blamed = {one.get("item") for one in errors if isinstance(one, dict)}
        elif refused.code in ("unassigned_items", "conflict"):
            items = refused.detail.get("items")
            blamed = {one for one in items if isinstance(one, int)} if isinstance(items, list) else set()
        else:
            return None
        bad = [one for one in batch if one.item in blamed]
        if not bad and len(batch) > 1:
            self._one_by_one = True  # the server does not say which; one by one the good ones get through
            return []
        bad = bad or batch
        for one in bad:
            log.warning("the result of item %d in %r is dropped: %s", one.item, self, refused)
        self._owner.spool.forget(self.bucket_id, bad)
        return bad

    async def _wait_or_lose(self, refused: Refused, backoff: Backoff) -> None:
        """Wait out what passes; give the bucket up for the rest."""
        passing = refused.code in TRANSIENT_REFUSALS or (
            refused.code == "internal" and backoff.tries < _MAX_INTERNAL_ATTEMPTS
        )
        if not passing:
            self.lose(str(refused))
            self._end()
            raise refused
        wait = backoff.next(refused.retry_after or 0.0)
        log.warning("%s Sending %r again in %.1f s.", refused, self, wait)
        await asyncio.sleep(wait)

    def _end(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self._owner.bucket_ended(self)
