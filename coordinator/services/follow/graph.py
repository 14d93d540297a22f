"""The statements that fill the graph of followers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from coordinator.model import ClaimNumber, ItemId
from coordinator.services.contract import Connection

# In the order of the keys, so that two submits with the same accounts cannot deadlock.
_PUT_ACCOUNTS = """
INSERT INTO follow_account AS a (key, attributes)
SELECT key, coalesce(attributes::jsonb, '{}')
  FROM unnest($1::text[], $2::text[]) AS given (key, attributes) ORDER BY key COLLATE "C"
ON CONFLICT (key) DO UPDATE SET attributes = excluded.attributes
 WHERE excluded.attributes <> '{}' AND excluded.attributes IS DISTINCT FROM a.attributes"""

# The two keys are the ends of an edge: the account of the item, and the account found.
_ADD_EDGES = """
INSERT INTO follow_sighting (follower, followed, claim_id, item_id, at)
SELECT CASE WHEN $6 THEN f.account_id ELSE o.account_id END, CASE WHEN $6 THEN o.account_id ELSE f.account_id END,
       $4, e.item_id, $5
  FROM unnest($1::bigint[], $2::text[], $3::text[]) AS e (item_id, owner, found)
  JOIN follow_account o ON o.key = e.owner
  JOIN follow_account f ON f.key = e.found
 ORDER BY 1, 2
ON CONFLICT DO NOTHING"""

_FORGET = "DELETE FROM follow_sighting WHERE item_id = ANY ($1::bigint[])"

Edge = tuple[ItemId, str, str]
"""The item, its key, and the key of an account that was found with it."""


async def add_edges(
    db: Connection,
    accounts: Mapping[str, str | None],
    edges: Sequence[Edge],
    claim: ClaimNumber,
    at: datetime,
    *,
    found_follow: bool,
) -> None:
    """Store the edges of one claim; `accounts` has the attributes, as JSON, of all accounts in them.

    `found_follow`: the accounts found follow the items' accounts; else the items' accounts follow them.
    """
    await db.execute(_PUT_ACCOUNTS, list(accounts), list(accounts.values()))
    await db.execute(_ADD_EDGES, *([edge[n] for edge in edges] for n in range(3)), claim, at, found_follow)


async def forget(db: Connection, items: Sequence[ItemId]) -> None:
    """Delete the edges of these items."""
    await db.execute(_FORGET, list(items))
