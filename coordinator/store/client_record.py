"""Records of one client: its claims of late by the hour, and the kinds of its results beside those of the others."""

from __future__ import annotations

from typing import Any

from coordinator.model import ServiceId
from coordinator.store.health import LABEL_HOURS
from coordinator.store.pool import Connection

RECORD_HOURS = 48
"""Hours that are told of."""

MOST_CLAIMS = 20_000
"""Claims of a client that are looked at, the newest: what a look costs has a bound."""

# A claim is of the hour in which it ended; one that goes on, of that in which it began.  The client stands there as a
# range, so that the newest claims are read from the index of clients, not among those of everybody.
#
# $1 client
# $2 service, or null: all
# $3 claims that are looked at
# $4 hours
# $5 rows
_HOURS = """
SELECT date_trunc('hour', coalesce(c.ended_at, c.begun_at)) AS at, c.service_id,
       sum(c.settled)::bigint AS settled, count(*) AS claims,
       count(*) FILTER (WHERE c.ended IN ('released', 'partial')) AS given_back,
       count(*) FILTER (WHERE c.ended IN ('dead', 'expired')) AS dead,
       count(*) FILTER (WHERE c.ended = 'cut_off') AS disconnects
  FROM (SELECT service_id, settled, ended, ended_at, begun_at FROM claim
         WHERE client_id >= $1 AND client_id <= $1 ORDER BY client_id DESC, claim_id DESC LIMIT $3) c
 WHERE coalesce(c.ended_at, c.begun_at) > now() - make_interval(hours => $4)
   AND ($2::int IS NULL OR c.service_id = $2)
 GROUP BY 1, 2 ORDER BY 1 DESC, 2 LIMIT $5"""

# $1 client
# $2 service, or null: all in which it had results
# $3 hours
# $4 rows
_OUTCOMES = """
SELECT l.service_id, l.label, coalesce(sum(l.n) FILTER (WHERE l.client_id = $1), 0)::bigint AS own,
       coalesce(sum(l.n) FILTER (WHERE l.client_id <> $1), 0)::bigint AS others
  FROM membership m
  JOIN client_label l ON l.service_id = m.service_id AND l.hour > now() - make_interval(hours => $3)
 WHERE m.client_id = $1 AND m.settled > 0 AND ($2::int IS NULL OR m.service_id = $2)
 GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $4"""


async def hours(db: Connection, client: str, service: ServiceId | None, limit: int) -> list[dict[str, Any]]:
    """List what a client did in each of the last RECORD_HOURS and each service, the newest first."""
    return [dict(row) for row in await db.fetch(_HOURS, client, service, MOST_CLAIMS, RECORD_HOURS, limit)]


async def outcomes(db: Connection, client: str, service: ServiceId | None, limit: int) -> list[dict[str, Any]]:
    """Count the results of each kind in the last LABEL_HOURS: those of a client, and those of all others."""
    return [dict(row) for row in await db.fetch(_OUTCOMES, client, service, LABEL_HOURS, limit)]
