"""Letting items wait again whose results have become old."""

from __future__ import annotations

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

# Whole claims become due, oldest end first.  An item counts only if nothing newer is known of it and it is not under
# way already.  All of them get one rank, of now, so that nothing that waits already is overtaken; the builder would
# shuffle them anyway.
_DUE = """
WITH due AS MATERIALIZED (
    SELECT claim_id FROM claim
     WHERE service_id = $1 AND settled > 0 AND NOT rechecked AND ended_at <= now() - make_interval(secs => $2)
     ORDER BY ended_at LIMIT $3 FOR UPDATE SKIP LOCKED),
seen AS (
    UPDATE claim SET rechecked = true WHERE claim_id = ANY (ARRAY (SELECT claim_id FROM due))),
found AS MATERIALIZED (
    SELECT r.item_id, max(r.claim_id) AS claim_id
      FROM results_of_claims(ARRAY (SELECT claim_id FROM due)) r GROUP BY r.item_id),
newest AS MATERIALIZED (
    SELECT n.item_id, max(n.claim_id) AS claim_id
      FROM results_of_items(ARRAY (SELECT item_id FROM found), (SELECT min(claim_id) FROM found)) n
      JOIN claim k USING (claim_id)
     WHERE n.service_id = $1 AND k.invalidated_by IS NULL GROUP BY n.item_id),
old AS MATERIALIZED (
    SELECT settled_items($1, array_agg(f.item_id)) AS ids
      FROM found f LEFT JOIN newest n USING (item_id) WHERE n.claim_id IS NULL OR n.claim_id <= f.claim_id)
SELECT cardinality(ids) AS number, put_waiting($1, ids, now(), now(), 100) FROM old WHERE cardinality(ids) > 0"""


async def recheck(db: Connection, service: ServiceId, recheck_after: float, claims: int = 50) -> int:
    """Let items wait again whose newest valid result is older than `recheck_after` seconds; returns how many.

    Within a transaction that holds the builder's lock; looks at `claims` claims at most.
    """
    return int(await db.fetchval(_DUE, service, recheck_after, claims) or 0)
