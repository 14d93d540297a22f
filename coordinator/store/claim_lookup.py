"""Finding a claim that a client names, with its bucket and its client; and those of a node."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.errors import NotOwner, StaleClaim
from coordinator.model import Boot, BucketId, ClaimNumber, ClientId, ItemId, ServiceId, SessionId
from coordinator.store.pool import Connection

_FIND_CLAIM = """
SELECT b.service_id, b.state, b.claim_id, b.client_id, c.client_id AS claimed_by, b.settled::text AS settled,
       c.given::text AS given, c.parts, i.items
  FROM bucket b JOIN bucket_items i USING (bucket_id)
  LEFT JOIN claim c ON c.claim_id = $2 AND c.bucket_id = b.bucket_id
 WHERE b.bucket_id = $1"""

_EVER_HELD = "SELECT EXISTS (SELECT FROM claim WHERE bucket_id = $1 AND client_id = $2)"


@dataclass(frozen=True, slots=True)
class NamedClaim:
    """A bucket, and the claim that a client names with it.

    `holder` and `current` are of the bucket.  `claimed_by` had the named claim: None where the bucket never had a claim
    of that number.  `given` are the items of that claim and `settled` those of the bucket, a bit each.
    """

    service_id: ServiceId
    holder: ClientId | None
    current: ClaimNumber
    claimed_by: ClientId | None
    items: tuple[ItemId, ...]
    given: str
    settled: str
    parts: int
    """Results of that claim so far that left their items unsettled."""


async def find_claim(db: Connection, bucket: BucketId, claim: ClaimNumber) -> NamedClaim | None:
    """Find a bucket and a claim of it; None if there is no bucket of that id."""
    row = await db.fetchrow(_FIND_CLAIM, bucket, claim)
    if row is None:
        return None
    return NamedClaim(
        ServiceId(row["service_id"]),
        row["client_id"],
        row["claim_id"],
        row["claimed_by"],
        tuple(row["items"]),
        row["given"] or "",
        row["settled"],
        row["parts"] or 0,
    )


async def ever_held(db: Connection, bucket: BucketId, client: ClientId) -> bool:
    """Tell whether any claim of that bucket was this client's."""
    return bool(await db.fetchval(_EVER_HELD, bucket, client))


async def check_owner(db: Connection, bucket: NamedClaim, bucket_id: BucketId, client: ClientId) -> None:
    """Check that the claim that a client names was its own.

    Raises:
        NotOwner: it was another's, or the client never held the bucket.
        StaleClaim: the bucket never had a claim of that number, though this client held it.
    """
    if bucket.claimed_by == client:
        return
    if bucket.claimed_by is None and await ever_held(db, bucket_id, client):
        raise StaleClaim("That is not the number of your claim.")
    raise NotOwner("That claim is not yours.")


_CLAIMS_OF_BOOT = """
SELECT bucket_id, claim_id, session_id FROM bucket
 WHERE boot = $1 AND state IN ('claimed', 'dead') AND kept_until IS NULL"""


async def claims_of_boot(db: Connection, boot: Boot) -> list[tuple[BucketId, ClaimNumber, SessionId]]:
    """List the buckets that this node's sessions hold, as the database knows it; for after a time without database."""
    return [(row["bucket_id"], row["claim_id"], row["session_id"]) for row in await db.fetch(_CLAIMS_OF_BOOT, boot)]
