"""Where a ready pool begins."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

PoolPlace = tuple[datetime, UUID]
"""A place in a ready pool: rank and shuffle number of a bucket."""

POOL_START: PoolPlace = (datetime.fromisoformat("0001-01-01T00:00:00+00:00"), UUID(int=0))
"""Before all that is ready."""

_FIND_FRONT = """
SELECT rank_at, shuffle FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL
 ORDER BY rank_at, shuffle LIMIT 1"""


async def find_front(db: Connection, service: ServiceId) -> PoolPlace | None:
    """Find the first ready bucket; None if there is none.  It passes all that vacuum has not removed yet."""
    row = await db.fetchrow(_FIND_FRONT, service)
    return None if row is None else (row["rank_at"], row["shuffle"])
