"""Results page by page, those of the newest claims first, for those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from coordinator.model import BucketId, ItemId, ServiceId
from coordinator.store.items import LISTED_BYTES, ListedResults, ResultRow, page_of
from coordinator.store.pool import Connection

CLAIMS_OF_A_WINDOW = 16
"""Claims whose results one statement looks at: some pages' worth, whatever the history."""

MOST_WINDOWS = 12
"""Windows that one page looks at: it is shorter than asked for where few results are like the filter."""


@dataclass(frozen=True, slots=True)
class Place:
    """A result in the list: when its claim began, the number of that, and the item; 0 is behind all items of it."""

    begun_at: datetime
    claim: int
    item: int


FIRST = Place(datetime.max.replace(tzinfo=UTC), 2**62, 2**62)
"""Before all results."""


@dataclass(frozen=True, slots=True)
class NewestFilter:
    """Which results of a service are listed; `value` is JSON that theirs contain, None is any."""

    service: ServiceId
    client: str | None = None
    bucket: BucketId | None = None
    since: datetime | None = None
    until: datetime | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True)
class NewestResults:
    """Rows of one page, and the place behind which the next one begins; None at the end."""

    rows: list[ResultRow]
    last: Place | None


# The newest claims of a service are walked by when they began, those of a client or bucket by their number.
#
# $1 service
# $2 begin of the claim from which on
# $3 number of that claim
# $4 since then, or null
# $5 until then, or null
# $6 claims at most
_CLAIMS = """
SELECT claim_id, begun_at FROM claim
 WHERE service_id = $1 AND begun_at <= $2 AND (begun_at, claim_id) <= ($2, $3) AND settled > 0
   AND begun_at <= coalesce($5, 'infinity'::timestamptz)
   AND ($4::timestamptz IS NULL OR ended_at IS NULL OR ended_at >= $4)
 ORDER BY begun_at DESC, claim_id DESC LIMIT $6"""

_CLAIMS_OF_CLIENT = """
SELECT claim_id, begun_at FROM claim
 WHERE client_id = $6 AND claim_id <= $2 AND service_id = $1 AND settled > 0
   AND begun_at <= coalesce($4, 'infinity'::timestamptz)
   AND ($3::timestamptz IS NULL OR ended_at IS NULL OR ended_at >= $3)
 ORDER BY claim_id DESC LIMIT $5"""

_CLAIMS_OF_BUCKET = """
SELECT claim_id, begun_at FROM claim
 WHERE bucket_id = $6 AND claim_id <= $2 AND service_id = $1 AND settled > 0
   AND begun_at <= coalesce($4, 'infinity'::timestamptz)
   AND ($3::timestamptz IS NULL OR ended_at IS NULL OR ended_at >= $3)
 ORDER BY claim_id DESC LIMIT $5"""

# Each result is looked up by its key, of the items that the bucket of its claim was made of.
#
# $1 service
# $2 claims, in order
# $3 item of the last row, of the first of these claims
# $4 since then, or null
# $5 until then, or null
# $6 what the value contains, or null
# $7 rows at most
# $8 client, or null
# $9 bytes of values at most
_RESULTS = """
SELECT s.name AS service, f.item, f.key, f.value, f.client_id, f.session_id, f.bucket_id, f.claim, f.at, f.valid,
       f.size
  FROM (
    SELECT *, sum(size) OVER (ORDER BY place, item DESC) - size AS before FROM (
        SELECT n.place, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
               k.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid, octet_length(r.value::text) AS size
          FROM unnest($2::bigint[]) WITH ORDINALITY AS n (claim_id, place)
          JOIN claim k USING (claim_id) JOIN bucket_items c USING (bucket_id)
         CROSS JOIN LATERAL results_of_claim(c.items, k.claim_id) r
         CROSS JOIN LATERAL (SELECT key FROM item WHERE item_id = r.item_id OFFSET 0) i
         WHERE (n.place > 1 OR r.item_id < $3) AND ($8::text IS NULL OR k.client_id = $8)
           AND ($4::timestamptz IS NULL OR r.at >= $4) AND ($5::timestamptz IS NULL OR r.at < $5)
           AND ($6::jsonb IS NULL OR r.value @> $6::jsonb)
         ORDER BY n.place, r.item_id DESC LIMIT $7) l) f
 CROSS JOIN service s WHERE s.service_id = $1 AND f.before < $9
 ORDER BY f.place, f.item DESC"""


async def newest(db: Connection, which: NewestFilter, after: Place, limit: int) -> NewestResults:
    """List results of a service, those of the newest claims first, from behind `after` on."""
    rows: list[ResultRow] = []
    room = LISTED_BYTES

    for _ in range(MOST_WINDOWS):
        claims = await _claims(db, which, after)
        if not claims:
            return NewestResults(rows, None)

        numbers, wanted = [claim for claim, _ in claims], limit - len(rows)
        before_item = after.item if numbers[0] == after.claim else FIRST.item
        found = await db.fetch(
            _RESULTS,
            which.service,
            numbers,
            before_item,
            which.since,
            which.until,
            which.value,
            wanted,
            which.client,
            room,
        )
        page = page_of(found, wanted, room)
        rows.extend(page.rows)
        room -= sum(row.size for row in page.rows)
        if page.last is not None:
            claim, item = page.last
            return NewestResults(rows, Place(dict(claims)[claim], claim, item))
        if len(claims) < CLAIMS_OF_A_WINDOW:
            return NewestResults(rows, None)
        after = Place(claims[-1][1], claims[-1][0], 0)

    return NewestResults(rows, after)


async def _claims(db: Connection, which: NewestFilter, after: Place) -> Sequence[tuple[int, datetime]]:
    from_claim = after.claim if after.item > 0 else after.claim - 1
    if which.bucket is None and which.client is None:
        rows = await db.fetch(
            _CLAIMS, which.service, after.begun_at, from_claim, which.since, which.until, CLAIMS_OF_A_WINDOW
        )
    else:
        statement, whose = (
            (_CLAIMS_OF_CLIENT, which.client) if which.bucket is None else (_CLAIMS_OF_BUCKET, which.bucket)
        )
        rows = await db.fetch(statement, which.service, from_claim, which.since, which.until, CLAIMS_OF_A_WINDOW, whose)
    return [(row["claim_id"], row["begun_at"]) for row in rows]


# $1 item
# $2 service, or null
# $3 claim of the last row
# $4 rows at most
# $5 bytes of values at most
_OF_ITEM = """
SELECT service, item, key, value, client_id, session_id, bucket_id, claim, at, valid, size FROM (
    SELECT *, sum(size) OVER (ORDER BY claim DESC) - size AS before FROM (
        SELECT s.name AS service, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
               r.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid, octet_length(r.value::text) AS size
          FROM results_of_items(ARRAY[$1::bigint], 0) r
          JOIN item i USING (item_id) JOIN service s USING (service_id) JOIN claim k USING (claim_id)
         WHERE ($2::int IS NULL OR r.service_id = $2) AND r.claim_id < $3
         ORDER BY r.claim_id DESC LIMIT $4) l) measured
 WHERE before < $5 ORDER BY claim DESC"""


async def of_item(db: Connection, item: ItemId, service: ServiceId | None, before: int, limit: int) -> ListedResults:
    """List the results of one item, in a service or in all, the newest first, of claims below `before`."""
    rows = await db.fetch(_OF_ITEM, item, service, before, limit, LISTED_BYTES)
    return page_of(rows, limit, LISTED_BYTES)
