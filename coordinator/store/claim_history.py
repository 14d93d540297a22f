"""Claims that were: of a bucket, those that had an item and brought no result of it, and the newest with results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, ServiceId
from coordinator.store.pool import Connection

_OF_BUCKET = """
SELECT k.claim_id AS claim, k.bucket_id, s.name AS service, k.client_id, k.begun_at, k.ended_at, k.ended,
       bit_count(k.given)::int AS given, k.settled, k.invalidated_by IS NULL AS valid
  FROM claim k JOIN service s USING (service_id)
 WHERE k.bucket_id = $1 AND k.claim_id < $2 ORDER BY k.claim_id DESC LIMIT $3"""

# The buckets that have the item, or through which it was settled or set aside, and those that they are parts of: two
# look-ups for each of its last results, of which there are few.
_OF_ITEM = """
WITH RECURSIVE own AS (
    SELECT bucket_id FROM open_places(ARRAY[$1::bigint])
    UNION SELECT k.bucket_id
            FROM (SELECT claim_id FROM results_of_items(ARRAY[$1::bigint], 0) ORDER BY claim_id DESC LIMIT 100) r
            JOIN claim k USING (claim_id)
    UNION SELECT q.bucket_id FROM service s JOIN quarantine q USING (service_id)
           WHERE q.item_id = $1 AND q.bucket_id IS NOT NULL),
line AS (
    SELECT bucket_id FROM own
    UNION SELECT b.split_from FROM line l JOIN bucket b USING (bucket_id) WHERE b.split_from IS NOT NULL)
SELECT k.claim_id AS claim, k.bucket_id, s.name AS service, k.client_id, k.begun_at, k.ended_at, k.ended,
       bit_count(k.given)::int AS given, k.settled, k.invalidated_by IS NULL AS valid
  FROM line l JOIN bucket_items i USING (bucket_id) JOIN claim k USING (bucket_id) JOIN service s USING (service_id)
 WHERE k.claim_id < $2 AND k.ended IS NOT NULL AND substring(k.given FROM array_position(i.items, $1) FOR 1) = B'1'
   AND k.claim_id NOT IN (SELECT claim_id FROM results_of_items(ARRAY[$1::bigint], 0))
 ORDER BY k.claim_id DESC LIMIT $3"""


# The newest claims of each service through which results came, one of each client.
#
# $1 clients
# $2 claims of each service that are looked at
_CONTRIBUTORS = """
SELECT n.client_id, c.screen_name, n.service_id, n.settled AS items, n.ended_at AS at
  FROM (SELECT DISTINCT ON (k.client_id) k.client_id, k.service_id, k.settled, k.ended_at
          FROM service s
         CROSS JOIN LATERAL (
               SELECT client_id, service_id, settled, ended_at FROM claim
                WHERE service_id = s.service_id AND settled > 0 AND NOT rechecked AND ended_at IS NOT NULL
                  AND invalidated_by IS NULL
                ORDER BY ended_at DESC LIMIT $2) k
         WHERE s.state <> 'revoked'
         ORDER BY k.client_id, k.ended_at DESC) n
  JOIN client c USING (client_id)
 WHERE c.registered AND c.deactivated IS NULL
   AND NOT EXISTS (SELECT FROM membership m WHERE m.client_id = n.client_id AND m.health = 'flagged')
 ORDER BY n.ended_at DESC LIMIT $1"""

CLAIMS_LOOKED_AT = 50
"""Claims of each service among which those who have just contributed are sought."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """The newest bucket of a client that has ended with results: how many, and when."""

    client_id: ClientId
    screen_name: str
    service_id: ServiceId
    items: int
    at: datetime


async def contributors(db: Connection, limit: int) -> list[Contribution]:
    """List the clients that contributed last, the newest first, but for those that are flagged or deactivated."""
    return [Contribution(**row) for row in await db.fetch(_CONTRIBUTORS, limit, CLAIMS_LOOKED_AT)]


@dataclass(frozen=True, slots=True)
class PastClaim:
    """A claim: how many items it handed out, how many of them it settled, and how it ended; None while it is open."""

    claim: ClaimNumber
    bucket_id: BucketId
    service: str
    client_id: ClientId
    begun_at: datetime
    ended_at: datetime | None
    ended: str | None
    given: int
    settled: int
    valid: bool


async def of_bucket(db: Connection, bucket: BucketId, before: int, limit: int) -> list[PastClaim]:
    """List the claims of a bucket, the newest first, of numbers below `before`."""
    return [PastClaim(**row) for row in await db.fetch(_OF_BUCKET, bucket, before, limit)]


async def without_result(db: Connection, item: ItemId, before: int, limit: int) -> list[PastClaim]:
    """List the claims that had an item and ended without a result of it, the newest first, of numbers below `before`.

    What it was in before it was taken out of a bucket, to be prioritised or tried again, is not known any more.
    """
    return [PastClaim(**row) for row in await db.fetch(_OF_ITEM, item, before, limit)]
