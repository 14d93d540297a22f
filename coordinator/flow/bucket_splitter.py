"""Split buckets that several clients failed at: 180 items → 20 → 1.  protocol.md, "Give-backs" """

from __future__ import annotations

import msgspec
import structlog

from coordinator.flow.bucket_builder import frame, new_bucket_id
from coordinator.flow.core import Core
from coordinator.flow.release import Releases
from coordinator.model import ServiceId
from coordinator.store import activity, item_changes
from coordinator.store import building as store
from coordinator.store.building import BucketToSplit, NewBucket
from coordinator.store.pool import Connection

log = structlog.get_logger()

FIRST_PART_SIZE = 20
"""Items of a part when a bucket is split for the first time; its parts are split into single items."""

BUCKETS_A_RUN = 20
"""Buckets of one service that one transaction splits; the service's builder waits for it."""

CLIENTS_TO_SPLIT = 2
"""Clients of standing at which a bucket must have failed: it is not set aside for the fault of one."""


def part_size(items: int) -> int:
    """Return the number of items of each part that a bucket of `items` items is split into."""
    return FIRST_PART_SIZE if items > FIRST_PART_SIZE else 1


class BucketSplitter:
    """Splits buckets that have used up their attempts, and quarantines single items that failed at two clients."""

    def __init__(self, core: Core, releases: Releases) -> None:
        self._core = core
        self._releases = releases

    async def split_due(self, service: ServiceId) -> None:
        """Split the buckets of a service that are due.

        Raises:
            Unavailable: the database is away.
        """
        async with self._core.database.transaction() as db:
            # The builder's lock: deleting and prioritising must not miss an item on its way to another bucket.
            if not await store.try_lock(db, service):
                return
            due = await store.due_for_split(db, service, BUCKETS_A_RUN)
            for broken in due:
                await self._split(db, broken)
        self._releases.wake(broken.service_id for broken in due)

    async def _split(self, db: Connection, broken: BucketToSplit) -> None:
        if broken.clients < CLIENTS_TO_SPLIT:  # what one of them had settled was taken back since
            await store.offer_again(db, broken.bucket_id)
            return
        if len(broken.items) == 1:
            await self._quarantine(db, broken)
            return

        size = part_size(len(broken.items))
        fragments = dict(zip(broken.all_items, msgspec.json.decode(broken.frame, type=list[msgspec.Raw]), strict=True))

        parts = [
            NewBucket(
                new_bucket_id(),
                broken.service_id,
                broken.rank_at,
                broken.since,
                broken.priority,
                items := broken.items[at : at + size],
                frame(bytes(fragments[item]).decode() for item in items),
            )
            for at in range(0, len(broken.items), size)
        ]

        await store.put_buckets(db, parts)
        await store.note_origin(db, broken.bucket_id, [part.bucket_id for part in parts])
        await store.close(db, [broken.bucket_id])
        for part in parts:
            await store.move_twins(db, broken.bucket_id, part.bucket_id, part.items)

    async def _quarantine(self, db: Connection, broken: BucketToSplit) -> None:
        (item,) = broken.items
        service = self._core.catalogue.by_id(broken.service_id).service.name
        outcome = f"after {broken.attempts} attempts"
        await item_changes.quarantine(db, broken.service_id, item, broken.attempts, broken.bucket_id)
        await store.close(db, [broken.bucket_id])
        await activity.note_item(db, self._core.actor, "item.quarantine", item, f"{service}, {outcome}")

        bucket = str(broken.bucket_id)
        self._core.events.emit("quarantine", f"item {item}, {outcome}", service=service, bucket=bucket)
        log.warning("item quarantined", item=item, attempts=broken.attempts, service=service, bucket=bucket)
