"""Reading buckets, for admins and for those who watch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from coordinator.model import BucketId, ItemId, ServiceId
from coordinator.store.pool import Connection

_BUCKET_PAGE = """
SELECT bucket_id, service_id, state, client_id, claim_id AS claim, attempts, touched_at,
       items_left(settled) AS remaining
  FROM bucket
 WHERE ($1::uuid IS NULL OR bucket_id > $1) AND ($3::int IS NULL OR service_id = $3)
   AND ($4::text IS NULL OR state = $4) AND ($5::text IS NULL OR client_id = $5)
 ORDER BY bucket_id LIMIT $2"""

_BUCKET = """
SELECT bucket_id, service_id, state, client_id, claim_id AS claim, attempts, touched_at,
       items_left(settled) AS remaining
  FROM bucket WHERE bucket_id = $1"""

_ITEMS_LEFT = """
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
    return [dict(row) for row in await db.fetch(_BUCKET_PAGE, after, limit, service, state, client)]


async def show(db: Connection, bucket: BucketId) -> dict[str, Any] | None:
    """One bucket, with `items` that are still to be settled; None if there is none of that id."""
    row = await db.fetchrow(_BUCKET, bucket)
    if row is None:
        return None
    return {**dict(row), "items": [dict(item) for item in await db.fetch(_ITEMS_LEFT, bucket)]}


# Open buckets: those held longest first, then the ready ones.  Each part walks a small index.
_OPEN_BUCKETS = """
SELECT * FROM (
    SELECT b.bucket_id, b.service_id, b.state, b.client_id, b.claim_id AS claim, b.attempts,
           items_left(b.settled) AS remaining,
           extract(epoch FROM now() - b.touched_at)::float8 AS age,
           coalesce(b.touched_at, 'infinity') AS place
      FROM (SELECT * FROM bucket WHERE state = 'ready' AND split_at IS NULL
            UNION ALL SELECT * FROM bucket WHERE split_at IS NOT NULL
            UNION ALL SELECT * FROM bucket WHERE state IN ('claimed', 'dead')) b
     WHERE ($3::int IS NULL OR b.service_id = $3) AND ($4::text IS NULL OR b.state = $4)) b
 WHERE $1::timestamptz IS NULL OR (b.place, b.bucket_id) > ($1, $2)
 ORDER BY b.place, b.bucket_id LIMIT $5"""

_OPEN_BUCKETS_OF_CLIENT = """
SELECT * FROM (
    SELECT b.bucket_id, b.service_id, b.state, b.client_id, b.claim_id AS claim, b.attempts,
           items_left(b.settled) AS remaining,
           extract(epoch FROM now() - b.touched_at)::float8 AS age, b.touched_at AS place
      FROM bucket b
     WHERE b.client_id = $6 AND ($3::int IS NULL OR b.service_id = $3) AND ($4::text IS NULL OR b.state = $4)) b
 WHERE $1::timestamptz IS NULL OR (b.place, b.bucket_id) > ($1, $2)
 ORDER BY b.place, b.bucket_id LIMIT $5"""

INFINITY = datetime.max.replace(tzinfo=UTC)
"""The place of ready buckets, behind all others: the driver's form of `infinity`."""


async def open_page(
    db: Connection,
    after: tuple[datetime, BucketId] | None,
    limit: int,
    service: ServiceId | None = None,
    state: str | None = None,
    client: str | None = None,
) -> list[dict[str, Any]]:
    """Open buckets, those that are held longest first, from behind `after` (its `place`, bucket) on.

    `age` is the seconds since it was claimed, last settled an item, or was marked dead; None while it is ready.
    """
    moment, bucket = after or (None, None)

    if client is not None:
        rows = await db.fetch(_OPEN_BUCKETS_OF_CLIENT, moment, bucket, service, state, limit, client)
    else:
        rows = await db.fetch(_OPEN_BUCKETS, moment, bucket, service, state, limit)

    return [dict(row) for row in rows]


_ONE = """
SELECT bucket_id, service_id, state, client_id, claim_id AS claim, attempts, items_left(settled) AS remaining,
       extract(epoch FROM now() - touched_at)::float8 AS age
  FROM bucket WHERE bucket_id = $1"""

_WITH_ITEM = """
SELECT b.bucket_id, b.service_id, b.state, b.client_id, b.claim_id AS claim, b.attempts,
       items_left(b.settled) AS remaining, extract(epoch FROM now() - b.touched_at)::float8 AS age
  FROM open_places(ARRAY[$1::bigint]) p JOIN bucket b USING (bucket_id)
 WHERE b.state <> 'done' AND get_bit(b.settled, p.place - 1) = 0 ORDER BY b.service_id, b.bucket_id"""


async def one(db: Connection, bucket: BucketId) -> list[dict[str, Any]]:
    """Find a bucket, open or done; the columns are those of `open_page`."""
    return [dict(row) for row in await db.fetch(_ONE, bucket)]


async def with_item(db: Connection, item: ItemId) -> list[dict[str, Any]]:
    """Find the open buckets in which an item is still to be settled: two, after it was prioritised."""
    return [dict(row) for row in await db.fetch(_WITH_ITEM, item)]
