"""The changes of results, in an order in which nothing that is committed later ever stands before what was read.

Each transaction that changes results adds a row to `new_change`.  The numbers that are drawn there are of no use to a
reader: a transaction that drew a low one may be committed long after one that drew a high one.  So what is committed is
moved to `change` by one transaction at a time, and numbered by it.  No open transaction holds up the others; and unlike
the numbers of transactions, these go on in a database that was restored.

A claim that is settled item by item makes a change for each.  Some time after its end they are put together, in the
place of the last one: whoever reads from between them is told some of its results once more, and misses none.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.model import ServiceId
from coordinator.store.export import FULL_PAGE_BYTES, MAX_PAGE_BYTES
from coordinator.store.pool import Connection

ORDERED_AT_ONCE = 10_000
"""Changes that one transaction orders: a tenth of a second."""

MOST_CHANGES_A_STATEMENT = 50
"""Changes of which one statement reads the results: about a usual bucket each."""

MERGED_AT_ONCE = 200
"""Claims whose changes one transaction puts together: some 36,000 changes if each item was settled on its own."""

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('coordinator.change'))"

# By their numbers: a change that was made after another one was seen to be committed stands behind it.
_ORDER = """
WITH taken AS (
    DELETE FROM new_change
     WHERE change_id = ANY (ARRAY (SELECT change_id FROM new_change ORDER BY change_id LIMIT $1))
    RETURNING *),
ordered AS (
    INSERT INTO change (service_id, kind, at, claim_id, items, partial)
    SELECT service_id, kind, at, claim_id, items, partial FROM taken ORDER BY change_id RETURNING true)
SELECT count(*) FROM ordered"""

_NEXT_CHANGES = """
SELECT max(position) FROM (
    SELECT position FROM change WHERE service_id = $1 AND position >= $2 ORDER BY position LIMIT $3) c"""

# Results are found by the items of their bucket, by the key: the claims that were taken back may be old, and far apart.
#
# $1 service
# $2 first change
# $3 last change
# $4 how each row begins
# $5 item of the first change behind which the rows begin
# $6 rows at most
# $7 bytes at most
_CHANGED = """
WITH changed AS MATERIALIZED (
    SELECT h.position, h.kind, h.at, h.items, h.partial, c.claim_id, b.items AS given,
           origin_json(c.client_id, c.session_id, c.bucket_id, c.claim_id) AS origin,
           '","valid":' || CASE WHEN c.invalidated_by IS NULL THEN 'true' ELSE 'false' END
               || ',"change":"' || h.kind || '"}' AS tail
      FROM change h LEFT JOIN claim c USING (claim_id) LEFT JOIN bucket_items b USING (bucket_id)
     WHERE h.service_id = $1 AND h.position BETWEEN $2 AND $3),
lines AS (
    SELECT h.position, r.item_id,
           $4 || r.item_id || ',"key":' || to_json(i.key) || ',"value":' || r.value || h.origin || json_time(r.at)
              || h.tail AS line
      FROM changed h
     CROSS JOIN LATERAL results_of_claim(h.given, h.claim_id) r
      JOIN item i ON i.item_id = r.item_id
     WHERE r.at = h.at OR NOT h.partial
    UNION ALL
    SELECT h.position, x.item_id, $4 || x.item_id || ',"at":"' || json_time(h.at) || '","change":"deleted"}'
      FROM changed h CROSS JOIN LATERAL unnest(h.items) AS x (item_id) WHERE h.kind = 'deleted')
SELECT position, item_id, line FROM (
    SELECT position, item_id, line,
           sum(octet_length(line)) OVER (ORDER BY position, item_id) - octet_length(line) AS before
      FROM (SELECT position, item_id, line FROM lines WHERE (position, item_id) > ($2, $5)
             ORDER BY position, item_id LIMIT $6) l) measured
 WHERE before < $7 ORDER BY position, item_id"""


# A week: whoever reads more often than that is told nothing twice.  Claims that began since then are not looked at.
_MERGE = """
WITH page AS MATERIALIZED (
    SELECT h.claim_id, h.last, c.ended_at < now() - interval '7 days' AS over,
           c.begun_at < now() - interval '7 days' AS old
      FROM (SELECT claim_id, max(position) AS last FROM change WHERE partial AND claim_id > $1
             GROUP BY claim_id ORDER BY claim_id LIMIT $2) h
      JOIN claim c USING (claim_id)),
merged AS (
    UPDATE change SET partial = false WHERE position = ANY (ARRAY (SELECT last FROM page WHERE over))),
gone AS (
    DELETE FROM change h USING page p
     WHERE p.over AND h.claim_id = p.claim_id AND h.partial AND h.position < p.last)
SELECT max(claim_id) AS last FROM page HAVING bool_and(old)"""


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Rows, each a JSON object, the (change, item) behind which the next page begins, and whether it may have rows."""

    rows: list[str]
    last: tuple[int, int]
    more: bool


async def order(db: Connection) -> int:
    """Bring what is committed by now into order, within a transaction of its own; returns how many changes.

    If that is `ORDERED_AT_ONCE`, there may be more.
    """
    await db.execute(_LOCK)
    return int(await db.fetchval(_ORDER, ORDERED_AT_ONCE))


async def merge(db: Connection, after: int) -> int:
    """Put together the changes of claims that ended a week ago; returns the claim behind which to go on, 0 at the end.

    Looks at the next `MERGED_AT_ONCE` claims that have several; within a transaction of its own.
    """
    await db.execute(_LOCK)
    return int(await db.fetchval(_MERGE, after, MERGED_AT_ONCE) or 0)


async def page(db: Connection, service: ServiceId, name: str, after: tuple[int, int], limit: int) -> ChangesPage:
    """Read changes of the service of that name, from behind `after` (change, item) on."""
    head = f'{{"service":"{name}","item":'
    found: list[str] = []
    size = 0
    first, item = after
    while True:
        last = await db.fetchval(_NEXT_CHANGES, service, first, min(MOST_CHANGES_A_STATEMENT, limit - len(found)))
        if last is None:
            return ChangesPage(found, (first, item), more=False)

        rows = await db.fetch(_CHANGED, service, first, last, head, item, limit - len(found), MAX_PAGE_BYTES - size)
        found.extend(row["line"] for row in rows)
        size += sum(len(row["line"]) for row in rows)

        if rows and (len(found) >= limit or size >= FULL_PAGE_BYTES):
            return ChangesPage(found, (rows[-1]["position"], rows[-1]["item_id"]), more=True)
        first, item = last + 1, 0
