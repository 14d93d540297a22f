"""Items that stand in a second open bucket, since they were prioritised while the first was claimed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from coordinator.model import ItemId
from coordinator.store.pool import Connection

_LEAVE_TWINS = "SELECT leave_twins($1, $2)"


async def leave_twins(db: Connection, buckets: Sequence[UUID], items: Sequence[ItemId] | None = None) -> None:
    """Take items that stand in a second bucket out of these ready ones: these items, or all; within a transaction."""
    await db.execute(_LEAVE_TWINS, list(buckets), None if items is None else list(items))
