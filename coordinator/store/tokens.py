"""Tokens, of which only the hashes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.store.pool import Connection


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is good now."""

    token_id: str
    role: str
    label: str


_ISSUE = """
INSERT INTO token (token_id, hash, role, label, expires_at, uses_left)
VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), $6)"""

_FIND_BY_HASH = """
SELECT token_id, role, label FROM token
 WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
   AND (uses_left IS NULL OR uses_left > 0)"""

_USE = """
UPDATE token SET uses_left = uses_left - 1
 WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
   AND (uses_left IS NULL OR uses_left > 0) AND role = 'enrolment'
RETURNING token_id, role, label"""

_REVOKE = "UPDATE token SET revoked_at = now() WHERE token_id = $1 AND revoked_at IS NULL RETURNING token_id"

_LIST_BY_ID = """
SELECT token_id, role, label, created_at, expires_at, uses_left, revoked_at IS NOT NULL AS revoked
  FROM token WHERE token_id > $1 ORDER BY token_id LIMIT $2"""


async def issue(
    db: Connection,
    token_id: str,
    token_hash: bytes,
    role: str,
    label: str,
    expires_in: float | None,
    uses: int | None,
) -> None:
    """Keep a new token; `expires_in` in seconds."""
    await db.execute(_ISSUE, token_id, token_hash, role, label, expires_in, uses)


async def find(db: Connection, token_hash: bytes) -> Token | None:
    """Find the token of that hash, if it is good now."""
    row = await db.fetchrow(_FIND_BY_HASH, token_hash)
    return None if row is None else Token(**row)


_GOOD_AMONG = """
SELECT token_id FROM token
 WHERE token_id = ANY ($1::text[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""


async def good_among(db: Connection, token_ids: Sequence[str]) -> set[str]:
    """Return those of the tokens, by which sessions live, that have neither expired nor been revoked."""
    return {row["token_id"] for row in await db.fetch(_GOOD_AMONG, list(token_ids))}


async def use_enrolment(db: Connection, token_hash: bytes) -> bool:
    """Spend one use of an enrolment token; False if there is none of that hash, or it is spent."""
    return await db.fetchrow(_USE, token_hash) is not None


async def revoke(db: Connection, token_id: str) -> bool:
    """End a token; False if there is no such token that is not revoked yet."""
    return await db.fetchval(_REVOKE, token_id) is not None


async def page(db: Connection, after: str, limit: int) -> list[dict[str, Any]]:
    """List tokens by id, without the tokens themselves."""
    return [dict(row) for row in await db.fetch(_LIST_BY_ID, after, limit)]
