"""Letting items wait again whose results have become old."""

from __future__ import annotations

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

# Whole claims become due, oldest end first.  An item counts only if nothing newer is known of it and it is not
# under way already.  The ranks keep the order of the results' age; they are of now, so that nothing that waits
# already is overtaken.
_DUE = """
WITH due AS MATERIALIZED (
    SELECT claim_id, ended_at FROM claim
     WHERE service_id = $1 AND settled > 0 AND NOT rechecked AND ended_at <= now() - make_interval(secs => $2)
     ORDER BY ended_at LIMIT $3 FOR UPDATE SKIP LOCKED),
seen AS (
    UPDATE claim c SET rechecked = true FROM due d WHERE c.claim_id = d.claim_id),
found AS MATERIALIZED (
    SELECT r.item_id, r.claim_id, d.ended_at
      FROM due d JOIN result r USING (claim_id)
     WHERE r.claim_id BETWEEN (SELECT min(claim_id) FROM due) AND (SELECT max(claim_id) FROM due)
       AND r.service_id = $1),
under_way AS (
    SELECT n.item_id
      FROM bucket_items i JOIN bucket b USING (bucket_id)
     CROSS JOIN LATERAL unnest(i.items) WITH ORDINALITY AS n (item_id, place)
     WHERE i.open AND i.items && (SELECT array_agg(item_id) FROM found)
       AND b.service_id = $1 AND b.state <> 'done' AND get_bit(b.settled, n.place::int - 1) = 0),
old AS (
    SELECT r.item_id, min(r.ended_at) AS ended_at
      FROM found r
     WHERE EXISTS (SELECT FROM item_service x WHERE x.service_id = $1 AND x.item_id = r.item_id)
       AND NOT EXISTS (SELECT FROM result n JOIN claim k USING (claim_id)
                        WHERE n.item_id = r.item_id AND n.service_id = $1 AND n.claim_id > r.claim_id
                          AND k.invalidated_by IS NULL)
       AND NOT EXISTS (SELECT FROM quarantine q WHERE q.service_id = $1 AND q.item_id = r.item_id)
       AND r.item_id NOT IN (SELECT item_id FROM under_way)
     GROUP BY r.item_id)
INSERT INTO waiting (service_id, item_id, rank_at, since, priority)
SELECT $1, item_id,
       now() - make_interval(secs => 0.000001 * (count(*) OVER () - row_number() OVER (ORDER BY ended_at, item_id))),
       now(), 100
  FROM old
ON CONFLICT (service_id, item_id) DO NOTHING"""


async def recheck(db: Connection, service: ServiceId, recheck_after: float, claims: int = 50) -> int:
    """Let items wait again whose newest valid result is older than `recheck_after` seconds; returns how many.

    Within a transaction that holds the builder's lock; looks at `claims` claims at most.
    """
    return int((await db.execute(_DUE, service, recheck_after, claims)).split()[-1])
