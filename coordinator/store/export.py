"""All results of a service, page by page, as JSON that the database composes and nobody parses on its way out.

A page goes over whole claims in windows of some thousand results, each one statement, so that it costs the same
wherever it lies, and ends where it has enough rows or bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

WINDOW_RESULTS = 6000
"""Results that one statement reads: nearly a page of usual ones."""

FULL_PAGE_BYTES = 1 << 20
"""Bytes with which a page ends at a window's end."""

MAX_PAGE_BYTES = 2 << 20
"""Bytes with which a page ends anywhere; more than that only if one result alone takes more."""

# The next claims that hold about a window of results; at least one.
_NEXT_CLAIMS = """
SELECT min(claim_id), max(claim_id) FROM (
    SELECT claim_id, sum(settled) OVER (ORDER BY claim_id) - settled AS before FROM (
        SELECT claim_id, settled FROM claim
         WHERE service_id = $1 AND claim_id >= $2 AND settled > 0 ORDER BY claim_id LIMIT 1000) c) w
 WHERE before < $3"""

# What all results of a claim share is composed once for each claim.  The results of the window are read once, whatever
# the plan takes the number of its claims for: statistics are missing after a restore.
#
# $1 service
# $2 first claim of the window
# $3 last claim of the window
# $4 how each row begins
# $5 item of the first claim behind which the rows begin
# $6 rows at most
# $7 bytes at most
# $8 whether the rows have the attributes of their items
_ROWS = """
WITH span AS MATERIALIZED (
    SELECT claim_id,
           origin_json(client_id, session_id, bucket_id, claim_id) AS origin,
           CASE WHEN invalidated_by IS NULL THEN '","valid":true}' ELSE '","valid":false}' END AS tail
      FROM claim WHERE service_id = $1 AND claim_id BETWEEN $2 AND $3 AND settled > 0),
scan AS MATERIALIZED (
    SELECT claim_id, item_id, value, at FROM results_of_claims(ARRAY (SELECT claim_id FROM span))
     WHERE (claim_id, item_id) > ($2, $5))
SELECT claim_id, item_id, line FROM (
    SELECT claim_id, item_id, line,
           sum(octet_length(line)) OVER (ORDER BY claim_id, item_id) - octet_length(line) AS before
      FROM (SELECT r.claim_id, r.item_id,
                   $4 || r.item_id || ',"key":' || to_json(i.key)
                      || CASE WHEN $8 THEN ',"attributes":' || i.attributes::text ELSE '' END
                      || ',"value":' || r.value || k.origin || json_time(r.at) || k.tail AS line
              FROM scan r JOIN span k USING (claim_id) JOIN item i USING (item_id)
             ORDER BY r.claim_id, r.item_id LIMIT $6) composed) measured
 WHERE before < $7 ORDER BY claim_id, item_id"""


@dataclass(frozen=True, slots=True)
class ExportPage:
    """Rows, each a JSON object, and the (claim, item) behind which the next page begins; None at the end."""

    rows: list[str]
    last: tuple[int, int] | None


async def page(
    db: Connection, service: ServiceId, name: str, after: tuple[int, int], limit: int, *, attributes: bool
) -> ExportPage:
    """Export results of the service of that name in the order of their claims, from behind `after` (claim, item) on."""
    head = f'{{"service":"{name}","item":'
    found: list[str] = []
    size = 0
    claim, item = after
    while True:
        first, last = await db.fetchrow(_NEXT_CLAIMS, service, claim, min(WINDOW_RESULTS, limit - len(found)))
        if first is None:
            return ExportPage(found, None)

        item = item if first == claim else 0
        room = limit - len(found), MAX_PAGE_BYTES - size
        rows = await db.fetch(_ROWS, service, first, last, head, item, *room, attributes)
        found.extend(row["line"] for row in rows)
        size += sum(len(row["line"]) for row in rows)

        if rows and (len(found) >= limit or size >= FULL_PAGE_BYTES):
            return ExportPage(found, (rows[-1]["claim_id"], rows[-1]["item_id"]))
        claim, item = last + 1, 0
