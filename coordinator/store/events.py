"""Events of all nodes; the newest EVENTS_KEPT are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator.model import Boot
from coordinator.store.pool import Connection

EVENTS_KEPT = 100_000
"""Events that are kept."""

# $1 boot
# $2 seconds ago
# $3 kinds
# $4 clients
# $5 services by name
# $6 buckets
# $7 texts
_WRITE = """
INSERT INTO event (at, boot, kind, client_id, service, bucket_id, text)
SELECT now() - make_interval(secs => age), $1, kind, client_id, service, bucket_id, text
  FROM unnest($2::float8[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
       WITH ORDINALITY AS e (age, kind, client_id, service, bucket_id, text, n) ORDER BY n"""

# One statement for each way to look, each along an index backwards.
_NEWEST = """
SELECT event_id, at, kind, client_id, service, bucket_id, text FROM event
 WHERE event_id < $1 ORDER BY event_id DESC LIMIT $2"""

_OF_CLIENT = """
SELECT event_id, at, kind, client_id, service, bucket_id, text FROM event
 WHERE event_id < $1 AND client_id = $3 AND ($4::text IS NULL OR service = $4) AND ($5::text IS NULL OR kind = $5)
 ORDER BY event_id DESC LIMIT $2"""

_OF_KIND = """
SELECT event_id, at, kind, client_id, service, bucket_id, text FROM event
 WHERE event_id < $1 AND kind = $3 AND ($4::text IS NULL OR service = $4) ORDER BY event_id DESC LIMIT $2"""

_OF_SERVICE = """
SELECT event_id, at, kind, client_id, service, bucket_id, text FROM event
 WHERE event_id < $1 AND service = $3 ORDER BY event_id DESC LIMIT $2"""

_REACH = """
SELECT coalesce((SELECT event_id FROM event ORDER BY event_id DESC LIMIT 1), 0) AS newest,
       coalesce((SELECT event_id FROM event ORDER BY event_id LIMIT 1), 1) AS oldest"""

_FAULTS = "SELECT count(*) FROM event WHERE kind = 'fault' AND at > now() - interval '1 hour'"

_FORGET = "DELETE FROM event WHERE event_id <= (SELECT event_id FROM event ORDER BY event_id DESC LIMIT 1) - $1"

EventRow = tuple[float, str, str | None, str | None, str | None, str]
"""An event: seconds ago, kind, client, service by name, bucket, text."""


async def write(db: Connection, boot: Boot, events: Sequence[EventRow]) -> None:
    """Write events of one node, oldest first."""
    await db.execute(_WRITE, boot, *([event[n] for event in events] for n in range(6)))


async def page(
    db: Connection,
    before: int,
    limit: int,
    *,
    client: str | None = None,
    service: str | None = None,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """List events, newest first, from before that number on."""
    if client is not None:
        rows = await db.fetch(_OF_CLIENT, before, limit, client, service, kind)
    elif kind is not None:
        rows = await db.fetch(_OF_KIND, before, limit, kind, service)
    elif service is not None:
        rows = await db.fetch(_OF_SERVICE, before, limit, service)
    else:
        rows = await db.fetch(_NEWEST, before, limit)

    return [dict(row) for row in rows]


async def reach(db: Connection) -> tuple[int, int]:
    """Find the number of the newest event (0: there is none) and about how many events there are."""
    row = await db.fetchrow(_REACH)
    return row["newest"], row["newest"] - row["oldest"] + 1


async def faults(db: Connection) -> int:
    """Count the faults of the last hour."""
    return int(await db.fetchval(_FAULTS))


async def forget(db: Connection) -> None:
    """Drop all but the newest EVENTS_KEPT events."""
    await db.execute(_FORGET, EVENTS_KEPT)
