"""Looking at buckets."""

from __future__ import annotations

from typing import Any

from coordinator.model import BucketId, ServiceId
from coordinator.store.pool import Connection

_ROW = """
SELECT b.bucket_id, b.service_id, b.state, b.client_id, b.claim, b.attempts, b.touched_at,
       length(b.settled) - bit_count(b.settled)::int AS remaining FROM bucket b """

_PAGE = (
    _ROW
    + """
 WHERE ($1::uuid IS NULL OR b.bucket_id > $1) AND ($3::int IS NULL OR b.service_id = $3)
   AND ($4::text IS NULL OR b.state = $4) AND ($5::text IS NULL OR b.client_id = $5)
 ORDER BY b.bucket_id LIMIT $2"""
)

_ONE = _ROW + "WHERE b.bucket_id = $1"

_LEFT = """
SELECT i.item_id AS item, i.key
  FROM bucket_items c JOIN bucket b USING (bucket_id)
 CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS n (item_id, place) JOIN item i USING (item_id)
 WHERE c.bucket_id = $1 AND get_bit(b.settled, n.place::int - 1) = 0 ORDER BY n.place"""


async def page(
    db: Connection,
    after: BucketId | None,
    limit: int,
    service: ServiceId | None,
    state: str | None,
    client: str | None,
) -> list[dict[str, Any]]:
    """Buckets by id, from behind `after` on; `client` is who holds them now."""
    return [dict(row) for row in await db.fetch(_PAGE, after, limit, service, state, client)]


async def show(db: Connection, bucket: BucketId) -> dict[str, Any] | None:
    """One bucket, with `items` that are still to be settled; None if there is none of that id."""
    row = await db.fetchrow(_ONE, bucket)
    if row is None:
        return None
    return {**dict(row), "items": [dict(item) for item in await db.fetch(_LEFT, bucket)]}
