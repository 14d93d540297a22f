"""A service that the daemon works for: the items in hand, and what its outside API has shown of itself."""

from __future__ import annotations

import asyncio
import logging
import reprlib
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from coordinator.client.bucket_stream import BucketStream
from coordinator.client.causes import cause_of
from coordinator.client.checkers import Checker, CheckFailed, NoResultInTime, ProgramDied, UpstreamOut
from coordinator.client.held_bucket import HeldBucket
from coordinator.client.limited_log import LimitedLog
from coordinator.client.upstream_pause import UpstreamPause
from coordinator.wording import counted

log = logging.getLogger("coordinator.client")

ITEM_TIMEOUT = 1200.0
"""Seconds that a checker has for one item: some more than a window of the API's limit, which it may wait out itself."""

_STRIKES = 5
"""Failures of the API over one item, with answers for others in between each time, before the item is the cause."""

_SHARE_OF_DEAD_AFTER = 0.5
"""Share of `dead_after` up to which items are kept over a pause."""

_NO_OUTAGE_FOR = 60.0
"""Seconds for which an API that answers over other items is taken to work."""

_STEPS_BEFORE_CONTROL = 3
"""Pauses in an outage after which an item that had an answer before is asked about, too."""


@dataclass(eq=False, slots=True)
class ItemInHand:
    """An item that waits for a check, and how often the API has failed over it alone."""

    bucket: HeldBucket
    item: dict[str, Any]
    strikes: int = 0
    answered_then: int = 0

    @property
    def wanted(self) -> bool:
        """Tell whether a result would still count."""
        return self.item["item"] in self.bucket.unsettled and not self.bucket.lost.is_set()


@dataclass(eq=False)
class ServiceWork:
    """A service that the daemon works for.

    `profile` is sent with the join, and given to the checker.  `item_timeout` is in seconds; None for a checker that
    watches the time itself.  `answered` counts the checks that had an answer, and
    `last_answered` is the item of the latest; `failures` is the log of items that cannot be checked.
    """

    service: str
    check: Checker
    profile: dict[str, Any] | None = None
    item_timeout: float | None = ITEM_TIMEOUT
    waiting: deque[ItemInHand] = field(default_factory=deque)
    stream: BucketStream | None = None
    bucket_size: int = 0
    answered: int = 0
    last_answered: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.pause = UpstreamPause(self.service)
        self.failures = LimitedLog(self.service)
        self._no_outage_until = 0.0

    def add(self, bucket: HeldBucket) -> None:
        """Take the items of a bucket in hand."""
        self.bucket_size = max(1, len(bucket.items))
        self.waiting.extend(ItemInHand(bucket, item) for item in bucket.items)

    def next(self) -> ItemInHand | None:
        """Take the item to check next; None if there is none, or the outside API takes nothing now."""
        while self.waiting and self.pause.admits():
            hand = self.waiting.popleft()
            if self.stream is not None:
                self.stream.nudge()
            if hand.wanted:
                return hand
        return None

    def take_late(self) -> list[ItemInHand]:
        """Take the items out of hand whose buckets may be dead before the outside API works again.

        In an outage, of which nobody knows the end, that is after half of that time; then a control finds its end.
        """
        pause = max(self.pause.seconds, self.pause.out_for if self.has_control else 0.0)
        late: list[ItemInHand] = []
        kept: list[ItemInHand] = []
        for hand in self.waiting:
            (late if pause > hand.bucket.dead_after * _SHARE_OF_DEAD_AFTER else kept).append(hand)

        if late:
            self.waiting = deque(kept)
            log.warning(
                "%s: gives back %s: the outside API takes none for long", self.service, counted(len(late), "item")
            )
        return late

    def note_answer(self, hand: ItemInHand, began: float) -> None:
        """Note that the outside API has answered over an item, whatever it said."""
        self.answered += 1
        self.last_answered = hand.item
        self.pause.answered(began)

    def is_to_blame(self, hand: ItemInHand) -> bool:
        """Count one more failure of the API over an item; tells whether the item itself must be the cause."""
        if self.answered > hand.answered_then:
            hand.strikes += 1
        hand.answered_then = self.answered
        return hand.strikes >= _STRIKES

    async def works_for_others(self, hand: ItemInHand) -> bool:
        """Find out whether the API answers over another item while it fails over this one.

        That is asked late in an outage, or soon after it has turned out to be none.
        """
        is_late = self.pause.steps >= _STEPS_BEFORE_CONTROL
        if self.last_answered is hand.item or not (is_late or time.monotonic() < self._no_outage_until):
            return False

        works = await self.is_answered()
        if works:
            self._no_outage_until = time.monotonic() + _NO_OUTAGE_FOR
        return works

    @property
    def has_control(self) -> bool:
        """Tell whether `is_answered` can find anything out."""
        return self.last_answered is not None or hasattr(self.check, "probe")

    async def is_answered(self) -> bool:
        """Check an item once more that had an answer; a checker may have a `probe`, which asks for nobody's item."""
        probe = getattr(self.check, "probe", None)
        try:
            if self.last_answered is not None:
                await self.result_of(self.last_answered)
            elif probe is not None:
                await probe(self.profile or {})
            else:
                return False
        except CheckFailed as failure:
            return not isinstance(failure, NoResultInTime | ProgramDied)
        except Exception:  # the call of a checker, which may raise anything
            return False
        return True

    def unanswered(self) -> dict[str, Any] | None:
        """Return the result for an item over which the outside API fails alone, if the checker knows one."""
        unanswered = getattr(self.check, "unanswered", None)
        return None if unanswered is None else unanswered()

    async def result_of(self, item: dict[str, Any]) -> dict[str, Any]:
        """Call the checker for one item; failures of the network in it are the outside API's.

        Raises:
            NoResultInTime: it has taken more than `item_timeout` seconds.
            UpstreamOut: its network failed.
            TypeError: it has returned something else than a dictionary.
            Exception: as the checker does.
        """
        deadline = asyncio.timeout(self.item_timeout)
        try:
            async with deadline:
                result: object = await self.check(dict(item), self.profile or {})
        except (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError) as failure:
            if deadline.expired():
                raise NoResultInTime(f"no result within {self.item_timeout:g} s") from None
            raise UpstreamOut(cause_of(failure, "the outside API")) from failure

        if not isinstance(result, dict):
            raise TypeError(
                f"the checker returned {reprlib.repr(result)}; expected a dictionary with the fields of the result, "
                'such as {"dm": "DM"}'
            )
        return result
