"""Rows of the database, as they are once a run is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.harness import PLACES

_RESULTS = "SELECT item_id, claim_id, value->>'token' FROM result JOIN service USING (service_id) WHERE name = $1"

_CLAIMS = """
SELECT claim_id, bucket_id::text, client_id, session_id::text, c.settled, ended
  FROM claim c JOIN service USING (service_id) WHERE name = $1"""

_BUCKETS = """
SELECT bucket_id::text, b.state, claim_id, client_id
  FROM bucket b JOIN service s USING (service_id) WHERE s.name = $1"""

_MEMBERSHIPS = """
SELECT client_id, m.settled, given_back, disconnects, dead, died, bad_submits, health, health_reason
  FROM membership m JOIN service USING (service_id) WHERE name = $1"""

_ITEMS = """
SELECT e.item_id, i.key FROM enrolled_item e JOIN item i USING (item_id) JOIN service s USING (service_id)
 WHERE s.name = $1"""

_OPEN = f"SELECT p.item_id, p.place FROM ({PLACES}) AS p JOIN service s USING (service_id) WHERE s.name = $1"


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A stored result."""

    item: int
    claim: int
    value: str


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One handing-out of a bucket; `ended` is None while it is open."""

    claim: int
    bucket: str
    client: str
    session: str
    settled: int
    ended: str | None


@dataclass(frozen=True, slots=True)
class BucketRow:
    """A bucket with its newest claim."""

    bucket: str
    state: str
    claim: int
    client: str | None


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """Counts of a client's work and faults."""

    client: str
    settled: int = 0
    given_back: int = 0
    disconnects: int = 0
    dead: int = 0
    died: int = 0
    bad_submits: int = 0
    health: str = "ok"
    health_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """All that the database knows of one service; `keys` of its items, and where those are that are not settled."""

    results: Sequence[ResultRow] = ()
    claims: Sequence[ClaimRow] = ()
    buckets: Sequence[BucketRow] = ()
    memberships: Sequence[MembershipRow] = ()
    keys: frozenset[str] = frozenset()
    items: frozenset[int] = frozenset()
    open: Sequence[tuple[int, str]] = ()


async def read_rows(dsn: str, service: str) -> Rows:
    """Read all of them in one snapshot."""
    db = await asyncpg.connect(dsn)
    try:
        async with db.transaction(isolation="repeatable_read", readonly=True):

            async def rows(statement: str) -> list[Any]:
                return list(await db.fetch(statement, service))

            items = await rows(_ITEMS)
            return Rows(
                [ResultRow(*row) for row in await rows(_RESULTS)],
                [ClaimRow(*row) for row in await rows(_CLAIMS)],
                [BucketRow(*row) for row in await rows(_BUCKETS)],
                [MembershipRow(*row) for row in await rows(_MEMBERSHIPS)],
                frozenset(row[1] for row in items),
                frozenset(row[0] for row in items),
                [(row[0], row[1]) for row in await rows(_OPEN)],
            )
    finally:
        await db.close()
