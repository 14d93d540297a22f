"""Taking results back, and giving them back.

It works on claims: a hundred times fewer rows than results, and unmarking them undoes it.  Claims that have not ended
are never marked, so nothing here waits for a submit, nor a submit for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.model import BucketId, ClaimNumber, ClientId, ServiceId
from coordinator.store import item_changes
from coordinator.store.pool import Connection

MARKING_DEADLINE = 600.0
"""Seconds that marking may take: seconds for ten million results, but on whatever machine."""


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """A choice of results, None: any.  A claim is chosen if one of its results is, and then all of them are."""

    client: ClientId | None
    service: ServiceId | None
    since: datetime | None
    until: datetime | None


_COUNT = "SELECT coalesce(sum(settled), 0)::bigint FROM valid_claims($1, $2, $3, $4)"

_OPEN = "SELECT bucket_id, claim_id FROM valid_claims($1, $2, $3, $4) WHERE ended_at IS NULL"

_BEGIN = """
INSERT INTO invalidation (client_id, service_id, since, until, requeued)
VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN 0 END) RETURNING invalidation_id"""

_MARK = """
WITH marked AS (
    UPDATE claim SET invalidated_by = $5
     WHERE invalidated_by IS NULL
       AND claim_id IN (SELECT claim_id FROM valid_claims($1, $2, $3, $4) WHERE ended_at IS NOT NULL)
    RETURNING claim_id, service_id, settled),
noted AS (
    INSERT INTO new_change (service_id, kind, claim_id)
    SELECT service_id, 'invalidated', claim_id FROM marked WHERE settled > 0 ORDER BY claim_id)
SELECT claim_id, service_id, settled FROM marked"""

_NOTE = "UPDATE invalidation SET claims = $2, results = $3 WHERE invalidation_id = $1"

_END = """
UPDATE invalidation SET reinstated_at = now(), requeued = NULL
 WHERE invalidation_id = $1 AND reinstated_at IS NULL RETURNING invalidation_id"""

_UNMARK = """
WITH unmarked AS (
    UPDATE claim SET invalidated_by = NULL WHERE invalidated_by = $1 RETURNING claim_id, service_id, settled),
noted AS (
    INSERT INTO new_change (service_id, kind, claim_id)
    SELECT service_id, 'reinstated', claim_id FROM unmarked WHERE settled > 0 ORDER BY claim_id)
SELECT claim_id, service_id, settled FROM unmarked"""


@dataclass(frozen=True, slots=True)
class MarkedClaims:
    """Claims that were marked or unmarked, by service, and how many results came through them."""

    claims: dict[ServiceId, list[ClaimNumber]]
    results: int


async def count(db: Connection, which: ResultFilter) -> int:
    """Count the results that would be taken back."""
    return int(await db.fetchval(_COUNT, *_values(which), timeout=MARKING_DEADLINE))


async def still_open(db: Connection, which: ResultFilter) -> list[tuple[BucketId, ClaimNumber]]:
    """List the chosen claims that have not ended: they have to end, so that nothing more comes through them."""
    return [
        (row["bucket_id"], row["claim_id"]) for row in await db.fetch(_OPEN, *_values(which), timeout=MARKING_DEADLINE)
    ]


async def mark(db: Connection, which: ResultFilter, *, requeue: bool) -> tuple[int, MarkedClaims]:
    """Take results back, within a transaction; returns the number under which it can be undone."""
    number = int(await db.fetchval(_BEGIN, *_values(which), requeue))
    marked = _marked(await db.fetch(_MARK, *_values(which), number, timeout=MARKING_DEADLINE))
    await db.execute(_NOTE, number, sum(map(len, marked.claims.values())), marked.results)
    return number, marked


async def unmark(db: Connection, number: int) -> MarkedClaims | None:
    """Give results back, within a transaction; None if there is nothing of that number to give back."""
    if await db.fetchval(_END, number) is None:
        return None
    return _marked(await db.fetch(_UNMARK, number, timeout=MARKING_DEADLINE))


_PAGE = """
SELECT v.invalidation_id, v.at, v.client_id, s.name AS service, v.since, v.until, v.claims, v.results, v.reinstated_at
  FROM invalidation v LEFT JOIN service s USING (service_id)
 WHERE v.invalidation_id > $1 ORDER BY v.invalidation_id LIMIT $2"""


async def page(db: Connection, after: int, limit: int) -> list[dict[str, Any]]:
    """List the times that results were taken back, oldest first, from behind that number on."""
    return [dict(row) for row in await db.fetch(_PAGE, after, limit)]


_UNFINISHED = "SELECT invalidation_id FROM invalidation WHERE requeued IS NOT NULL ORDER BY invalidation_id"

_PLACE = "SELECT requeued FROM invalidation WHERE invalidation_id = $1 AND requeued IS NOT NULL FOR UPDATE"

_NEXT = """
SELECT claim_id, service_id FROM claim WHERE invalidated_by = $1 AND claim_id > $2 ORDER BY claim_id LIMIT $3"""

_ADVANCE = "UPDATE invalidation SET requeued = $2 WHERE invalidation_id = $1"

_ITEMS_OF = """
SELECT DISTINCT r.item_id
  FROM claim c
  JOIN bucket_items i USING (bucket_id)
 CROSS JOIN LATERAL results_of_claim(i.items, c.claim_id) r
 WHERE c.claim_id = ANY ($2::bigint[]) AND c.service_id = $1 AND c.invalidated_by IS NULL"""

# As in rechecks: only if nothing newer is known of the item, and it is not under way already.
_REQUEUE = """
WITH gone AS MATERIALIZED (
    SELECT r.item_id, max(r.claim_id) AS claim_id
      FROM claim c
      JOIN bucket_items i USING (bucket_id)
     CROSS JOIN LATERAL results_of_claim(i.items, c.claim_id) r
     WHERE c.claim_id = ANY ($2::bigint[]) AND c.service_id = $1 GROUP BY r.item_id),
newest AS MATERIALIZED (
    SELECT n.item_id, max(n.claim_id) AS claim_id
      FROM results_of_items(ARRAY (SELECT item_id FROM gone), (SELECT min(claim_id) FROM gone)) n
      JOIN claim k USING (claim_id)
     WHERE n.service_id = $1 AND k.invalidated_by IS NULL GROUP BY n.item_id),
again AS MATERIALIZED (
    SELECT settled_items($1, array_agg(g.item_id)) AS ids
      FROM gone g LEFT JOIN newest n USING (item_id) WHERE n.claim_id IS NULL OR n.claim_id <= g.claim_id)
SELECT cardinality(ids) AS number, put_waiting($1, ids, now(), now(), 100) FROM again WHERE cardinality(ids) > 0"""


async def unfinished(db: Connection) -> list[int]:
    """List the invalidations whose items do not all wait again yet."""
    return [row["invalidation_id"] for row in await db.fetch(_UNFINISHED)]


async def next_claims(db: Connection, number: int, limit: int) -> dict[ServiceId, list[ClaimNumber]] | None:
    """Take the next claims whose items are to wait again; None: there are no more.

    Nobody else gets them until the transaction ends.
    """
    place = await db.fetchval(_PLACE, number)
    if place is None:
        return None

    found = await db.fetch(_NEXT, number, place, limit)
    await db.execute(_ADVANCE, number, found[-1]["claim_id"] if found else None)
    return _by_service(found) if found else None


async def requeue(db: Connection, service: ServiceId, claims: Sequence[ClaimNumber]) -> int:
    """Let the items of these claims of a service wait again; within a transaction that holds its builder's lock."""
    return int(await db.fetchval(_REQUEUE, service, list(claims)) or 0)


async def withdraw(db: Connection, service: ServiceId, claims: Sequence[ClaimNumber]) -> None:
    """Let no item of these claims of a service wait or be handed out any more, since their results count again.

    What is claimed goes on.  Within a transaction that holds the builder's lock of the service.
    """
    items = [row["item_id"] for row in await db.fetch(_ITEMS_OF, service, list(claims))]
    if items:
        await item_changes.take_out_of_queue(db, service, items)


def _values(which: ResultFilter) -> tuple[Any, ...]:
    return which.client, which.service, which.since, which.until


def _marked(rows: Sequence[Any]) -> MarkedClaims:
    return MarkedClaims(_by_service(rows), sum(row["settled"] for row in rows))


def _by_service(rows: Sequence[Any]) -> dict[ServiceId, list[ClaimNumber]]:
    found: dict[ServiceId, list[ClaimNumber]] = {}
    for row in rows:
        found.setdefault(row["service_id"], []).append(row["claim_id"])
    return found
