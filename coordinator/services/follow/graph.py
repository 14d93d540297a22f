"""The statements that fill the graph of followers, and the one that reads what is around an account."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from coordinator.keys import Key
from coordinator.model import ClaimNumber, ItemId
from coordinator.services.contract import Connection

# In the order of the keys, so that two submits with the same accounts cannot deadlock.
_PUT_ACCOUNTS = """
INSERT INTO follow_account (key, canonical)
SELECT key, canonical FROM unnest($1::text[], $2::text[]) AS given (key, canonical)
 ORDER BY coalesce(canonical, key) COLLATE "C"
ON CONFLICT (coalesce(canonical, key)) DO NOTHING"""

# Each account is looked up by itself: a join that was planned while there were few accounts compares all that are given
# with all that there are by now (9 s for 10,000 of each).
_TELL = """
INSERT INTO follow_told AS t (account_id, claim_id, item_id, attributes)
SELECT a.account_id, $4, given.item_id, given.attributes::jsonb
  FROM unnest($1::text[], $2::bigint[], $3::text[]) AS given (key, item_id, attributes)
 CROSS JOIN LATERAL (SELECT account_id FROM follow_account WHERE coalesce(canonical, key) = given.key LIMIT 1) a
ON CONFLICT (account_id, claim_id) DO UPDATE SET attributes = excluded.attributes, item_id = excluded.item_id"""

# The two canonical keys are the ends of an edge: the account of the item, and the account found.
_ADD_EDGES = """
INSERT INTO follow_sighting (follower, followed, claim_id, item_id, at)
SELECT CASE WHEN $6 THEN f.account_id ELSE o.account_id END, CASE WHEN $6 THEN o.account_id ELSE f.account_id END,
       $4, e.item_id, $5
  FROM unnest($1::bigint[], $2::text[], $3::text[]) AS e (item_id, owner, found)
 CROSS JOIN LATERAL (SELECT account_id FROM follow_account WHERE coalesce(canonical, key) = e.owner LIMIT 1) o
 CROSS JOIN LATERAL (SELECT account_id FROM follow_account WHERE coalesce(canonical, key) = e.found LIMIT 1) f
 ORDER BY 1, 2
ON CONFLICT DO NOTHING"""

_FORGET = "DELETE FROM follow_sighting WHERE item_id = ANY ($1::bigint[])"

_FORGET_TOLD = "DELETE FROM follow_told WHERE item_id = ANY ($1::bigint[])"

Told = tuple[str, ItemId, str]
"""The canonical key of an account, the item with which it was found, and its attributes as JSON."""

Edge = tuple[ItemId, str, str]
"""The item, its canonical key, and the canonical key of an account that was found with it."""


async def add_edges(
    db: Connection,
    accounts: Collection[Key],
    told: Sequence[Told],
    edges: Sequence[Edge],
    claim: ClaimNumber,
    at: datetime,
    *,
    found_follow: bool,
) -> int:
    """Store the edges of one claim; `accounts` are all accounts in them, `told` has the attributes of some.

    `found_follow`: the accounts found follow the items' accounts; else the items' accounts follow them.  Returns how
    many edges this claim had not told yet.
    """
    await db.execute(_PUT_ACCOUNTS, *([account[n] for account in accounts] for n in range(2)))
    if told:
        await db.execute(_TELL, *([one[n] for one in told] for n in range(3)), claim)
    added = await db.execute(_ADD_EDGES, *([edge[n] for edge in edges] for n in range(3)), claim, at, found_follow)
    return int(added.split()[-1])


async def forget(db: Connection, items: Sequence[ItemId]) -> None:
    """Delete the edges of these items, and what was told with them."""
    await db.execute(_FORGET, list(items))
    await db.execute(_FORGET_TOLD, list(items))


SIGHTINGS_LOOKED_AT = 2_000
"""Sightings of one account, each way, that a look at its neighbours reads: some accounts have millions."""

# $1 item
# $2 sightings that are read each way
# $3 neighbours
_AROUND = """
WITH account AS MATERIALIZED (
    SELECT a.account_id FROM item i JOIN follow_account a ON coalesce(a.canonical, a.key) = coalesce(i.canonical, i.key)
     WHERE i.item_id = $1),
outward AS MATERIALIZED (
    SELECT s.followed AS other, s.claim_id FROM follow_sighting s
     WHERE s.follower = (SELECT account_id FROM account) ORDER BY s.followed LIMIT $2),
inward AS MATERIALIZED (
    SELECT s.follower AS other, s.claim_id FROM follow_sighting s
     WHERE s.followed = (SELECT account_id FROM account) ORDER BY s.follower LIMIT $2),
edges AS (
    SELECT e.other, bool_or(e.follows) AS follows, bool_or(NOT e.follows) AS followed
      FROM (SELECT other, claim_id, false AS follows FROM outward
            UNION ALL SELECT other, claim_id, true FROM inward) e
      JOIN claim c ON c.claim_id = e.claim_id AND c.invalidated_by IS NULL
     GROUP BY e.other),
counted AS (
    SELECT count(*) FILTER (WHERE follows) AS followers, count(*) FILTER (WHERE followed) AS following,
           count(*) FILTER (WHERE follows AND followed) AS mutual,
           (SELECT count(*) FROM outward) < $2 AND (SELECT count(*) FROM inward) < $2 AS complete
      FROM edges)
SELECT c.followers, c.following, c.mutual, c.complete, coalesce(i.key, a.key) AS key, e.follows, e.followed,
       i.item_id AS item
  FROM counted c CROSS JOIN edges e JOIN follow_account a ON a.account_id = e.other
  LEFT JOIN item i ON coalesce(i.canonical, i.key) = coalesce(a.canonical, a.key)
 ORDER BY e.follows AND e.followed DESC, e.other LIMIT $3"""


@dataclass(frozen=True, slots=True)
class Tie:
    """An account that follows another, or is `followed` by it, or both; `item` if it is one."""

    key: str
    item: ItemId | None
    follows: bool
    followed: bool


@dataclass(frozen=True, slots=True)
class EgoNetwork:
    """The accounts that are tied to one, mutual ones first; not `complete`: there are more than were counted."""

    followers: int
    following: int
    mutual: int
    complete: bool
    ties: Sequence[Tie]


async def around(db: Connection, item: ItemId, most: int) -> EgoNetwork | None:
    """Return some of the accounts that follow an item's account, or that it follows; None if none is known.

    Claims that were invalidated do not count.  At most `SIGHTINGS_LOOKED_AT` sightings each way are read.
    """
    rows = await db.fetch(_AROUND, item, SIGHTINGS_LOOKED_AT, most)
    if not rows:
        return None
    return EgoNetwork(
        rows[0]["followers"],
        rows[0]["following"],
        rows[0]["mutual"],
        rows[0]["complete"],
        [Tie(row["key"], row["item"], row["follows"], row["followed"]) for row in rows],
    )
