"""From waiting items to shuffled buckets in the ready pool.  protocol.md, "Rank"

One node at a time builds the buckets of a service, any node; the others find the lock taken and leave it to that one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from time import monotonic
from typing import TypeVar
from uuid import UUID

import msgspec
from msgspec import Raw

from coordinator.flow.catalogue import Entry
from coordinator.model import BucketId, Claimed, ServiceId, ServiceSettings
from coordinator.store import building as store
from coordinator.store.building import MAX_READY, QueuePlace, ReadyPool
from coordinator.store.pool import Database

MAX_ITEMS_A_RUN = 18_000
"""How many items are shuffled together: 100 buckets of the usual size."""

T = TypeVar("T")

_random = secrets.SystemRandom()


def new_bucket_id() -> BucketId:
    """A random UUID from the operating system's generator."""
    return BucketId(UUID(bytes=secrets.token_bytes(16), version=4))


def head_start(priority: int, most: float) -> float:
    """Seconds that a priority is worth: 100 is normal and has none; 0 has `most`.

    Priorities above 100 have a negative one: they wait longer.
    """
    return (100 - priority) / 100 * most


def ready_for_each(settings: ServiceSettings) -> int:
    """Count the ready buckets that there should be for each client that may ask: enough for two asks."""
    return settings.max_buckets_per_ask * 2


def pool_target(workers: int, settings: ServiceSettings) -> int:
    """Count the ready buckets that there should be for so many clients that may ask.

    At most `MAX_READY`: more would only cost looking whether they are there.
    """
    return min(workers * ready_for_each(settings), MAX_READY)


def most_items(settings: ServiceSettings) -> int:
    """Count the items that one run takes at most."""
    return max(settings.bucket_size, MAX_ITEMS_A_RUN)


def span(settings: ServiceSettings) -> float:
    """Seconds after the rank of the first item of a run within which its last one has come.

    As much as the cap of head starts, so that nothing is overtaken beyond its bound; but an hour at least, since what
    comes in a trickle would else make a bucket each.
    """
    return max(settings.max_head_start, 3600.0)


class BuildReason(Enum):
    """Why buckets are to be built."""

    AHEAD = auto()
    """The pool should hold more than it does."""
    NOTHING_READY = auto()
    """An ask found no ready bucket, so a short one is better than none."""
    ONLY_RETURNED_ONES = auto()
    """There are ready buckets, but only such as the asking client has given back."""
    NEW_ITEMS = auto()
    """No bucket was ready, and a few items have just come."""


class BuildStatus(Enum):
    """How a run of the builder has ended."""

    BUILT = auto()
    """Buckets were built, and more items may wait."""
    ALL_BUILT = auto()
    """Buckets were built of all items that were seen to wait."""
    POOL_FULL = auto()
    """As many buckets are ready as there should be."""
    QUEUE_EMPTY = auto()
    """No items wait of which a bucket should be built."""
    BUSY = auto()
    """Another builder works on this service, or has just ended."""


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """How a run has ended, how many buckets it built, and how many should be ready (None: it has not looked).

    `behind`: those that it built rank behind all that were ready.
    """

    status: BuildStatus
    buckets: int = 0
    target: int | None = None
    behind: bool = False


@dataclass(frozen=True, slots=True)
class BuildSize:
    """The task of one run: take `limit` items at most, and build `short` buckets too of what is left over."""

    limit: int
    short: bool


def build_size(pool: ReadyPool, target: int, settings: ServiceSettings, reason: BuildReason) -> BuildSize | None:
    """Decide what a run has to do; None if there is nothing to do."""
    size = settings.bucket_size
    overtaken = pool.back is not None and pool.front is not None and pool.front < pool.back
    if not pool.waiting or (pool.ready >= target and not overtaken and reason is BuildReason.AHEAD):
        return None

    nothing_ready = reason is BuildReason.NOTHING_READY and pool.ready == 0
    short = nothing_ready or reason is BuildReason.ONLY_RETURNED_ONES or overtaken

    # With less than a bucket there, all of it is known: the statement is then given no more chance than it needs.
    limit = pool.waiting if pool.waiting < size else min(max(1, target - pool.ready) * size, most_items(settings))
    return BuildSize(limit, short) if short or pool.waiting >= size else None


def shuffled_parts(items: Sequence[T], size: int) -> list[list[T]]:
    """Put the items in an order that nobody can foresee, and cut them into parts of `size`."""
    shuffled = list(items)
    _random.shuffle(shuffled)
    return [shuffled[at : at + size] for at in range(0, len(shuffled), size)]


def frame(fragments: Iterable[str]) -> str:
    """The JSON array that clients are sent, of items that are JSON already."""
    return "[" + ",".join(fragments) + "]"


def frame_of(claimed: Claimed) -> str:
    """The JSON array of those items of a claim that are handed out."""
    if "1" not in claimed.settled:
        return claimed.frame
    items = msgspec.json.decode(claimed.frame, type=list[Raw])
    left = [item for item, bit in zip(items, claimed.settled, strict=True) if bit == "0"]
    return msgspec.json.encode(left).decode()


TRUST_POSITION_FOR = 1.0
"""Seconds for which a builder believes that nothing new ranks before what it has left, unless it hears of something.

It can be wrong for so long: the rank of an item is when its transaction began, and others may be committed before it.
"""


@dataclass(slots=True)
class _Position:
    """The place in a queue where it was left, and when it was last looked at from its beginning."""

    start: QueuePlace = store.QUEUE_START
    looked: float = field(default_factory=monotonic)


class BucketBuilder:
    """Keeps the ready pools filled.

    It remembers where it left each queue: what was taken stays in the index until a vacuum, and a look from the
    beginning has to pass all of that.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._positions: dict[ServiceId, _Position] = {}

    def forget(self, service: ServiceId) -> None:
        """Look from the beginning of a queue: something may wait now that ranks before what was left."""
        self._positions.pop(service, None)

    async def build(self, entry: Entry, reason: BuildReason, *, wait_for_lock: bool = False) -> BuildOutcome:
        """Build buckets of one service.  `wait_for_lock`: wait for another builder, do not leave it to it.

        Raises:
            Unavailable: the database is away; nothing was moved, but for `NEW_ITEMS`, where that is not known.
        """
        if reason is BuildReason.NEW_ITEMS:
            built = await self._build_few(entry)
            if built:
                return BuildOutcome(BuildStatus.ALL_BUILT, built)
            reason = BuildReason.NOTHING_READY

        settings, service = entry.service.settings, entry.service.service_id
        position = self._position_of(service)
        async with self._database.transaction() as db:
            if wait_for_lock:
                await store.lock(db, [service])
            pool = await store.look(db, service, ready_for_each(settings), settings.bucket_size, position.start)
            if pool is None:
                return BuildOutcome(BuildStatus.BUSY)

            target = pool_target(pool.workers, settings)
            if wait_for_lock and reason is BuildReason.NOTHING_READY and pool.ready:
                return BuildOutcome(BuildStatus.BUILT, pool.ready, target)  # another builder was quicker
            run = build_size(pool, target, settings, reason)
            if run is None:
                full = pool.ready >= target
                return BuildOutcome(BuildStatus.POOL_FULL if full else BuildStatus.QUEUE_EMPTY, 0, target)

            start = position.start if pool.front is None or pool.first is None else (pool.front, pool.first)
            built, start = await store.make(
                db,
                service,
                run.limit,
                settings.bucket_size,
                short=run.short,
                start=start,
                span=span(settings),
            )

        position.start = start  # which nobody looks at any more if it was forgotten meanwhile
        if not built:  # where there was something: another builder has just ended
            return BuildOutcome(BuildStatus.BUSY)
        drained = pool.waiting < settings.bucket_size
        behind = pool.back is not None and pool.front is not None and pool.front > pool.back
        return BuildOutcome(BuildStatus.ALL_BUILT if drained else BuildStatus.BUILT, built, target, behind)

    def _position_of(self, service: ServiceId) -> _Position:
        position = self._positions.get(service)
        if position is None or monotonic() - position.looked > TRUST_POSITION_FOR:
            position = self._positions[service] = _Position()
        return position

    async def _build_few(self, entry: Entry) -> int:
        """Build short buckets of the few items that have just come, while none is ready; returns how many.

        Builds nothing if a whole bucket of items waits, or if another builder is at work.
        """
        settings, service = entry.service.settings, entry.service.service_id
        async with self._database.connection() as db:
            return await store.make_few(db, service, settings.bucket_size, span(settings))
