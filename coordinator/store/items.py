"""Reading the catalogue, waiting items, and the results of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, ItemState, ServiceId, SessionId, WaitingItem
from coordinator.store.pool import Connection


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """A row of the catalogue."""

    item: ItemId
    key: str
    attributes: dict[str, Any]


# A keyset over the index (service_id, rank_at, block): the last page costs what the first one costs.  Up to a block of
# items stands before the page in its first rows.
_WAITING = """
SELECT w.item_id, i.key, w.rank_at, w.since, w.priority
  FROM (SELECT item_at(f.block, o) AS item_id, f.rank_at, f.since, f.priority
          FROM waiting_front($1, $2, item_block($3), $4 + 1024) AS f CROSS JOIN unnest(f.offsets) AS o
         WHERE (f.rank_at, item_at(f.block, o)) > ($2, $3)
         ORDER BY 2, 1 LIMIT $4) w
 -- OFFSET 0 keeps this a look-up for each row: a join of its own choice may read the whole catalogue.
 CROSS JOIN LATERAL (SELECT key FROM item WHERE item_id = w.item_id OFFSET 0) i
 ORDER BY w.rank_at, w.item_id"""


async def waiting(db: Connection, service: ServiceId, after: tuple[datetime, int], limit: int) -> list[WaitingItem]:
    """List waiting items in rank order, from behind `after` (rank, item) on."""
    return [
        WaitingItem(ItemId(row["item_id"]), row["key"], row["rank_at"], row["since"], row["priority"])
        for row in await db.fetch(_WAITING, service, *after, limit)
    ]


_PAGE = """
SELECT item_id AS item, key, attributes FROM item
 WHERE coalesce(canonical, key) > $1
   AND coalesce(canonical, key) >= $2 AND coalesce(canonical, key) < $2 || chr(1114111)
 ORDER BY coalesce(canonical, key) LIMIT $3"""


async def page(db: Connection, after: str, prefix: str, limit: int) -> list[CatalogueItem]:
    """List items whose canonical keys begin with `prefix`, in their order, from behind the key `after` on."""
    return [CatalogueItem(**row) for row in await db.fetch(_PAGE, after, prefix, limit)]


_FIND_ITEM = """
SELECT i.item_id, i.key, i.attributes, i.found_with, i.found_by, s.name AS service, k.client_id
  FROM item i LEFT JOIN claim k ON k.claim_id = i.found_by LEFT JOIN service s USING (service_id)
 WHERE coalesce(i.canonical, i.key) = $1"""

# As the statistics count: of two copies the one that can be had counts, and none if one of them was settled.
_STATES = """
WITH place AS MATERIALIZED (
    SELECT b.service_id, b.state
      FROM open_places(ARRAY[$1::bigint]) p JOIN bucket b USING (bucket_id)
     WHERE b.state <> 'done' AND get_bit(b.settled, p.place - 1) = 0
       AND NOT EXISTS (SELECT FROM twin t
                        WHERE t.service_id = b.service_id AND t.item_id = $1 AND t.settled_by IS NOT NULL))
SELECT s.name,
       CASE WHEN EXISTS (SELECT FROM waiting w
                          WHERE w.service_id = s.service_id AND w.block = e.block
                            AND item_offset($1) = ANY (w.offsets)) THEN 'waiting'
            WHEN EXISTS (SELECT FROM quarantine q WHERE q.service_id = s.service_id AND q.item_id = $1)
            THEN 'quarantined'
            WHEN EXISTS (SELECT FROM place p WHERE p.service_id = s.service_id AND p.state = 'ready') THEN 'ready'
            WHEN EXISTS (SELECT FROM place p WHERE p.service_id = s.service_id) THEN 'claimed'
            ELSE 'settled' END AS state
  FROM service s JOIN enrolment e ON e.service_id = s.service_id AND e.block = item_block($1)
 WHERE get_bit(e.members, item_offset($1)) = 1 ORDER BY s.name"""

_RESULTS_OF = """
SELECT s.name AS service, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
       r.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid
  FROM results_of_items(ARRAY[$1::bigint], 0) r
  JOIN item i USING (item_id) JOIN service s USING (service_id) JOIN claim k USING (claim_id)
 ORDER BY r.claim_id DESC LIMIT 1000"""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A stored result with its origin."""

    service: str
    item: ItemId
    key: str
    value: Any
    client_id: ClientId
    session_id: SessionId
    bucket_id: BucketId
    claim: ClaimNumber
    at: datetime
    valid: bool
    size: int = 0
    """Bytes of its value, where a page is bounded by them."""


@dataclass(frozen=True, slots=True)
class ListedResults:
    """Rows of one page, and the (claim, item) behind which the next one begins; None at the end."""

    rows: list[ResultRow]
    last: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Discovery:
    """The result that showed an item which nobody had added: its item, service, client and claim."""

    item: ItemId
    service: str
    client_id: ClientId
    claim: ClaimNumber


@dataclass(frozen=True, slots=True)
class ItemStory:
    """An item, its origin, its state in each of its services, and all its results, newest first."""

    item: ItemId
    key: str
    attributes: dict[str, Any]
    found: Discovery | None
    states: list[tuple[str, ItemState]]
    results: list[ResultRow]


async def show(db: Connection, canonical: str) -> ItemStory | None:
    """Load all that is known of one item; None if its canonical key is not known."""
    row = await db.fetchrow(_FIND_ITEM, canonical)
    if row is None:
        return None
    states = [(state["name"], state["state"]) for state in await db.fetch(_STATES, row["item_id"])]
    results = [ResultRow(**result) for result in await db.fetch(_RESULTS_OF, row["item_id"])]
    found = None
    if row["service"] is not None:
        found = Discovery(row["found_with"], row["service"], row["client_id"], row["found_by"])
    return ItemStory(ItemId(row["item_id"]), row["key"], row["attributes"], found, states, results)


# Pages by (claim, item): results arrive nearly in that order, and block ranges find those of a claim.  The window
# over claims keeps each page's cost independent of what lies behind it.
WINDOW_CLAIMS = 16
"""Claims to a window: some pages' worth of results, whatever the history."""

LISTED_BYTES = 2 * 1024 * 1024
"""Bytes of values with which a page ends: one value may be as long as a frame.  It has one row at least."""

# $1 service
# $2 claim of the last row
# $3 item of the last row
# $4 client, or null
# $5 since then, or null
# $6 until then, or null
# $7 rows at most
# $8 claims of a window
# $9 bytes of values at most
_LIST = """
WITH span AS MATERIALIZED (
    SELECT claim_id, client_id, session_id, bucket_id, invalidated_by FROM claim
     WHERE service_id = $1 AND claim_id >= $2 AND settled > 0
       AND ($4::text IS NULL OR client_id = $4)
       AND ($5::timestamptz IS NULL OR ended_at IS NULL OR ended_at >= $5)
       AND ($6::timestamptz IS NULL OR begun_at <= $6)
     ORDER BY claim_id LIMIT $8)
SELECT service, item, key, value, client_id, session_id, bucket_id, claim, at, valid, size FROM (
    SELECT *, sum(size) OVER (ORDER BY claim, item) - size AS before FROM (
        SELECT s.name AS service, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
               r.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid, octet_length(r.value::text) AS size
          FROM results_of_claims(ARRAY (SELECT claim_id FROM span)) r
          JOIN span k USING (claim_id) JOIN item i USING (item_id) JOIN service s USING (service_id)
         WHERE (r.claim_id, r.item_id) > ($2, $3)
           AND ($5::timestamptz IS NULL OR r.at >= $5) AND ($6::timestamptz IS NULL OR r.at < $6)
         ORDER BY r.claim_id, r.item_id LIMIT $7) l) measured
 WHERE before < $9 ORDER BY claim, item"""

_LAST_CLAIM = """
SELECT max(claim_id), count(*) FROM (
    SELECT claim_id FROM claim
     WHERE service_id = $1 AND claim_id >= $2 AND settled > 0
       AND ($3::text IS NULL OR client_id = $3)
       AND ($4::timestamptz IS NULL OR ended_at IS NULL OR ended_at >= $4)
       AND ($5::timestamptz IS NULL OR begun_at <= $5)
     ORDER BY claim_id LIMIT $6) w"""

# $1 service
# $2 claim of the last row
# $3 item of the last row
# $4 canonical key
# $5 client, or null
# $6 since then, or null
# $7 until then, or null
# $8 rows at most
# $9 bytes of values at most
_LIST_OF_ITEM = """
SELECT service, item, key, value, client_id, session_id, bucket_id, claim, at, valid, size FROM (
    SELECT *, sum(size) OVER (ORDER BY claim) - size AS before FROM (
        SELECT s.name AS service, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
               r.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid, octet_length(r.value::text) AS size
          FROM item i CROSS JOIN LATERAL results_of_items(ARRAY[i.item_id], $2 - 1) r
          JOIN service s USING (service_id) JOIN claim k USING (claim_id)
         WHERE coalesce(i.canonical, i.key) = $4 AND r.service_id = $1 AND (r.claim_id, r.item_id) > ($2, $3)
           AND ($5::text IS NULL OR k.client_id = $5)
           AND ($6::timestamptz IS NULL OR r.at >= $6) AND ($7::timestamptz IS NULL OR r.at < $7)
         ORDER BY r.claim_id, r.item_id LIMIT $8) l) measured
 WHERE before < $9 ORDER BY claim"""


async def results(
    db: Connection,
    service: ServiceId,
    after: tuple[int, int],
    limit: int,
    *,
    canonical: str | None = None,
    client: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> ListedResults:
    """List results of a service in the order of their claims, from behind `after` (claim, item) on."""
    if canonical is not None:
        rows = await db.fetch(_LIST_OF_ITEM, service, *after, canonical, client, since, until, limit, LISTED_BYTES)
        return page_of(rows, limit, LISTED_BYTES)

    found: list[ResultRow] = []
    room = LISTED_BYTES
    start = after
    while True:
        wanted = limit - len(found)
        page = page_of(
            await db.fetch(_LIST, service, *start, client, since, until, wanted, WINDOW_CLAIMS, room), wanted, room
        )
        found.extend(page.rows)
        room -= sum(row.size for row in page.rows)
        if page.last is not None:
            return ListedResults(found, page.last)

        # A window of claims may hold less than a page; the next one begins behind its last claim.
        last = await db.fetchrow(_LAST_CLAIM, service, start[0], client, since, until, WINDOW_CLAIMS)
        if last["count"] < WINDOW_CLAIMS:
            return ListedResults(found, None)
        start = (last["max"] + 1, 0)


def page_of(rows: Sequence[Mapping[str, Any]], limit: int, room: int) -> ListedResults:
    """Make a page of the rows of a statement that was given so many rows, and bytes of values, at most."""
    found = [ResultRow(**row) for row in rows]
    full = len(found) == limit or sum(row.size for row in found) >= room
    return ListedResults(found, (found[-1].claim, found[-1].item) if full else None)
