"""Buckets that are held for too long without a result: marked dead, then freed.

Each node sees to those that its own sessions hold, since it alone knows whether they could have been submitted in time.
"""

from __future__ import annotations

from collections.abc import Collection

from coordinator.model import Boot, BucketId, Freed, ServiceId
from coordinator.store import claims
from coordinator.store.pool import Connection

# $1 service
# $2 seconds without a result
# $3 start of a node
# $4 buckets that are spared
_MARK_DEAD = """
WITH marked AS (
    UPDATE bucket SET state = 'dead', touched_at = now()
     WHERE bucket_id = ANY (ARRAY (
        SELECT bucket_id FROM bucket
         WHERE service_id = $1 AND state = 'claimed' AND kept_until IS NULL
           AND touched_at <= counted_since($2) AND boot = $3 AND bucket_id <> ALL ($4)
         ORDER BY touched_at LIMIT 500 FOR UPDATE SKIP LOCKED))
    RETURNING service_id, bucket_id, claim_id, client_id, session_id,
              items_left(settled) AS remaining),
holders AS MATERIALIZED (
    SELECT client_id, service_id FROM membership
     WHERE (client_id, service_id) IN (SELECT client_id, service_id FROM marked)
     ORDER BY client_id, service_id FOR NO KEY UPDATE),
counted AS (
    UPDATE membership m
       SET died = m.died + f.n, died_run = m.died_run + f.n, well = 0,
           died_claim = CASE WHEN m.died_run > 0 THEN m.died_claim ELSE (SELECT last_value FROM claim_number) END
      FROM (SELECT client_id, service_id, count(*) AS n FROM marked JOIN holders USING (client_id, service_id)
             GROUP BY 1, 2) f
     WHERE m.client_id = f.client_id AND m.service_id = f.service_id)
SELECT service_id, bucket_id, claim_id, client_id, session_id, remaining FROM marked"""


async def mark_dead(
    db: Connection, service: ServiceId, dead_after: float, boot: Boot, spared: Collection[BucketId] = ()
) -> list[Freed]:
    """Mark buckets as dead that settled nothing for `dead_after` seconds; their holders keep them for now."""
    return [claims.freed_of(row) for row in await db.fetch(_MARK_DEAD, service, dead_after, boot, spared)]


# $5 service
# $6 seconds since they were marked
# $7 start of a node
# $8 buckets that are spared
_RELEASE_DEAD = """
SELECT * FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket
                                   WHERE service_id = $5 AND state = 'dead'
                                     AND touched_at <= counted_since($6)
                                     AND boot = $7 AND bucket_id <> ALL ($8)
                                   ORDER BY touched_at LIMIT 500 FOR UPDATE SKIP LOCKED), $1, $2, $3, $4)"""


async def release_dead(
    db: Connection,
    service: ServiceId,
    release_after: float,
    recollect_window: float,
    boot: Boot,
    spared: Collection[BucketId] = (),
) -> list[Freed]:
    """Free the buckets that were marked dead `release_after` seconds ago."""
    which = service, release_after, boot, spared
    return await claims.free(db, _RELEASE_DEAD, claims.DEAD, recollect_window, *which)
