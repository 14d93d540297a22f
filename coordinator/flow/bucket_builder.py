"""From waiting items to shuffled buckets in the ready pool.  protocol.md, "Rank"

One node at a time makes the buckets of a service, any node; the others find the lock taken and let it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
    """What a priority is worth, in seconds: 100 is normal and has none; 0 has `most`.

    Priorities above 100 have a negative one: they wait longer.
    """
    return (100 - priority) / 100 * most


def ready_for_each(settings: ServiceSettings) -> int:
    """How many ready buckets there should be for each client that may ask: enough for two asks."""
    return settings.max_buckets_per_ask * 2


def pool_target(workers: int, settings: ServiceSettings) -> int:
    """How many ready buckets there should be for so many clients that may ask.

    At most `MAX_READY`: more would only cost looking whether they are there.
    """
    return min(workers * ready_for_each(settings), MAX_READY)


def most_items(settings: ServiceSettings) -> int:
    """How many items one run takes at most."""
    return max(settings.bucket_size, MAX_ITEMS_A_RUN)


def span(settings: ServiceSettings) -> float:
    """How much later than the rank of the first the last of a run may have come, in seconds.

    As much as the cap of head starts, so that nothing is overtaken beyond its bound; but an hour at least, since what
    comes in a trickle would else make a bucket each.
    """
    return max(settings.max_head_start, 3600.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do: take `limit` items at most, and let `short` buckets be made of what is left over."""

    limit: int
    short: bool


def plan(pool: ReadyPool, target: int, settings: ServiceSettings, *, wanted: bool, needy: bool) -> Plan | None:
    """Whether a run has anything to do, and what; `wanted` and `needy` as in `BucketBuilder.make`."""
    size = settings.bucket_size
    overtaken = pool.back is not None and pool.front is not None and pool.front < pool.back
    if not pool.waiting or (pool.ready >= target and not (overtaken or needy or wanted)):
        return None
    short = (wanted and pool.ready == 0) or needy or overtaken
    # With less than a bucket there, all of it is known: the statement is then given no more chance than it needs.
    limit = pool.waiting if pool.waiting < size else min(max(1, target - pool.ready) * size, most_items(settings))
    return Plan(limit, short) if short or pool.waiting >= size else None


def shuffled_parts(items: Sequence[T], size: int) -> list[list[T]]:
    """The items in an order that nobody can foresee, cut into parts of `size`."""
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


@dataclass(frozen=True, slots=True)
class Made:
    """What one run did: how many buckets it made."""

    buckets: int
    target: int = 0
    """How many ready buckets there should be."""
    drained: bool = False
    """All was made that was seen to wait."""
    full: bool = False
    """There were as many as there should be."""
    busy: bool = False
    """Another node is making buckets of this service right now: then there is no target."""


SURE = 1.0
"""Seconds for which a builder believes that nothing new ranks before what it has left, unless it hears of something.

It can be wrong for so long: the rank of an item is when its transaction began, and others may be committed before it.
"""


@dataclass(slots=True)
class _Left:
    """Where a queue was left, and when it was last looked at from its beginning."""

    start: QueuePlace = store.QUEUE_START
    looked: float = field(default_factory=monotonic)


class BucketBuilder:
    """Keeps the ready pools filled.

    It remembers where it left each queue: what was taken stays in the index until a vacuum, and a look from the
    beginning has to pass all of that.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._left: dict[ServiceId, _Left] = {}

    def forget(self, service: ServiceId) -> None:
        """Something may wait now that ranks before what was left: look from the beginning."""
        self._left.pop(service, None)

    async def make(self, entry: Entry, *, wanted: bool, needy: bool = False, patient: bool = False) -> Made:
        """One run for one service.

        `wanted`: an ask found no ready bucket, so a short one is better than none; `needy`: there are ready ones,
        but only such as the asking client has given back; `patient`: wait for another builder, do not leave it to it.

        Raises:
            Unavailable: the database is away; nothing was moved.
        """
        settings = entry.service.settings
        service = entry.service.service_id
        left = self._left.get(service)
        if left is None or monotonic() - left.looked > SURE:
            left = self._left[service] = _Left()
        async with self._database.transaction() as db:
            if patient:
                await store.lock(db, [service])
            pool = await store.look(db, service, ready_for_each(settings), settings.bucket_size, left.start)
            if pool is None:
                return Made(0, busy=True)
            target = pool_target(pool.workers, settings)
            if patient and wanted and not needy and pool.ready:
                return Made(pool.ready, target)  # another builder was quicker
            run = plan(pool, target, settings, wanted=wanted, needy=needy)
            if run is None:
                return Made(0, target, full=pool.ready >= target)
            start = left.start if pool.front is None or pool.first is None else (pool.front, pool.first)
            made, start = await store.make(
                db,
                service,
                run.limit,
                settings.bucket_size,
                short=run.short,
                start=start,
                span=span(settings),
            )
        left.start = start  # which nobody looks at any more if it was forgotten meanwhile
        # Nothing, where there was something: another builder has just ended.
        return Made(made, target, drained=made > 0 and pool.waiting < settings.bucket_size, busy=not made)

    async def make_few(self, entry: Entry) -> int:
        """Short buckets of the few items that have just come, while none is ready; returns how many were made.

        Makes nothing if a whole bucket of items waits, or if another builder is at work: that is left to `make`.

        Raises:
            Unavailable: the database is away; it is not known whether they were made.
        """
        settings, service = entry.service.settings, entry.service.service_id
        async with self._database.connection() as db:
            return await store.make_few(db, service, settings.bucket_size, span(settings))
