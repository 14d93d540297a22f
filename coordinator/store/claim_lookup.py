"""Find a claim that a client names: which bucket, and whether it was its own."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.errors import NotOwner, StaleClaim
from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, ServiceId
from coordinator.store.pool import Connection

_FIND_CLAIM = """
SELECT b.service_id, b.state, b.claim_id, b.client_id, c.client_id AS of_claim, b.settled::text AS settled,
       c.given::text AS given, i.items
  FROM bucket b JOIN bucket_items i USING (bucket_id)
  LEFT JOIN claim c ON c.claim_id = $2 AND c.bucket_id = b.bucket_id
 WHERE b.bucket_id = $1"""

_EVER_HELD = "SELECT EXISTS (SELECT FROM claim WHERE bucket_id = $1 AND client_id = $2)"


@dataclass(frozen=True, slots=True)
class ClaimOwner:
    """A bucket, and whose the claim is that someone names with it.

    `of_claim` is None where the bucket never had a claim of that number; `given` are the items of that claim.
    """

    service_id: ServiceId
    holder: ClientId | None
    current: ClaimNumber
    of_claim: ClientId | None
    items: tuple[ItemId, ...]
    given: str
    settled: str


async def find_claim(db: Connection, bucket: BucketId, claim: ClaimNumber) -> ClaimOwner | None:
    """What is known of a bucket; None if there is none of that id."""
    row = await db.fetchrow(_FIND_CLAIM, bucket, claim)
    if row is None:
        return None
    return ClaimOwner(
        ServiceId(row["service_id"]),
        row["client_id"],
        row["claim_id"],
        row["of_claim"],
        tuple(row["items"]),
        row["given"] or "",
        row["settled"],
    )


async def ever_held(db: Connection, bucket: BucketId, client: ClientId) -> bool:
    """Whether any claim of that bucket was this client's."""
    return bool(await db.fetchval(_EVER_HELD, bucket, client))


async def check_owner(db: Connection, bucket: ClaimOwner, bucket_id: BucketId, client: ClientId) -> None:
    """Whether the claim that a client names was ever its own.

    Raises:
        NotOwner: it was another's, or the client never held the bucket.
        StaleClaim: the bucket never had a claim of that number, though this client held it.
    """
    if bucket.of_claim == client:
        return
    if bucket.of_claim is None and await ever_held(db, bucket_id, client):
        raise StaleClaim("That is not the number of your claim.")
    raise NotOwner("That claim is not yours.")
