"""Events of all nodes; the newest EVENTS_KEPT are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
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
# $8 severities
_WRITE = """
INSERT INTO event (at, boot, kind, client_id, service, bucket_id, text, severity)
SELECT now() - make_interval(secs => age), $1, kind, client_id, service, bucket_id, text, severity
  FROM unnest($2::float8[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
       WITH ORDINALITY AS e (age, kind, client_id, service, bucket_id, text, severity, n) ORDER BY n"""

# One statement for each way to look, each along an index backwards.  What the index does not choose is looked through:
# EVENTS_KEPT rows at most.
#
# $1 the event before which the page begins
# $2 rows
# $3 since, or null
# $4 until, or null
# $5 kinds, or null
# $6 service, or null
# $7 severities, or null
# $8 client
_NEWEST = """
SELECT e.*, (SELECT name FROM node n WHERE n.boot = e.boot) AS node FROM event e
 WHERE event_id < $1 AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
 ORDER BY event_id DESC LIMIT $2"""

_SERIOUS = """
SELECT e.*, (SELECT name FROM node n WHERE n.boot = e.boot) AS node FROM event e
 WHERE event_id < $1 AND severity <> 'info' AND severity = ANY ($7)
   AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
   AND ($5::text[] IS NULL OR kind = ANY ($5)) AND ($6::text IS NULL OR service = $6)
 ORDER BY event_id DESC LIMIT $2"""

_OF_CLIENT = """
SELECT e.*, (SELECT name FROM node n WHERE n.boot = e.boot) AS node FROM event e
 WHERE event_id < $1 AND ($7::text[] IS NULL OR severity = ANY ($7))
   AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
   AND ($5::text[] IS NULL OR kind = ANY ($5)) AND ($6::text IS NULL OR service = $6) AND client_id = $8
 ORDER BY event_id DESC LIMIT $2"""

_OF_KINDS = """
SELECT e.*, (SELECT name FROM node n WHERE n.boot = e.boot) AS node
  FROM unnest($5::text[]) AS k (of_kind)
 CROSS JOIN LATERAL (
    SELECT * FROM event
     WHERE kind = of_kind AND event_id < $1
       AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
       AND ($6::text IS NULL OR service = $6)
     ORDER BY event_id DESC LIMIT $2) e
 ORDER BY event_id DESC LIMIT $2"""

_OF_SERVICE = """
SELECT e.*, (SELECT name FROM node n WHERE n.boot = e.boot) AS node FROM event e
 WHERE event_id < $1 AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
   AND ($5::text[] IS NULL OR kind = ANY ($5)) AND service = $6
 ORDER BY event_id DESC LIMIT $2"""

_REACH = """
SELECT coalesce((SELECT event_id FROM event ORDER BY event_id DESC LIMIT 1), 0) AS newest,
       coalesce((SELECT event_id FROM event ORDER BY event_id LIMIT 1), 1) AS oldest"""

_FAULTS = "SELECT count(*) FROM event WHERE kind = 'fault' AND at > now() - interval '1 hour'"

_FORGET = "DELETE FROM event WHERE event_id <= (SELECT event_id FROM event ORDER BY event_id DESC LIMIT 1) - $1"

EventRow = tuple[float, str, str | None, str | None, str | None, str, str]
"""An event: seconds ago, kind, client, service by name, bucket, text, severity."""

_FROM = {"warning": ["warning", "error"], "error": ["error"]}
"""The severities from one on."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A choice of events; None: any.  `severity` is the least one, `since` and `until` are when it happened."""

    client: str | None = None
    service: str | None = None
    kinds: Sequence[str] | None = None
    severity: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def write(db: Connection, boot: Boot, events: Sequence[EventRow]) -> None:
    """Write events of one node, oldest first."""
    await db.execute(_WRITE, boot, *([event[n] for event in events] for n in range(7)))


async def page(db: Connection, before: int, limit: int, which: EventFilter = EventFilter()) -> list[dict[str, Any]]:
    """List events, newest first, from before that number on."""
    kinds = None if which.kinds is None else list(dict.fromkeys(which.kinds))
    severities = None if which.severity is None else _FROM[which.severity]
    of_time = (before, limit, which.since, which.until)

    if which.client is not None:
        rows = await db.fetch(_OF_CLIENT, *of_time, kinds, which.service, severities, which.client)
    elif severities is not None:
        rows = await db.fetch(_SERIOUS, *of_time, kinds, which.service, severities)
    elif kinds is not None:
        rows = await db.fetch(_OF_KINDS, *of_time, kinds, which.service)
    elif which.service is not None:
        rows = await db.fetch(_OF_SERVICE, *of_time, kinds, which.service)
    else:
        rows = await db.fetch(_NEWEST, *of_time)

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
