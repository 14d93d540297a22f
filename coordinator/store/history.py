"""Work that was done in each second, minute and hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from coordinator.model import OTHER_KINDS, ServiceId
from coordinator.store.pool import Connection

Step = Literal["second", "minute", "hour"]

Counts = tuple[int, int, int, int, int, int]
"""Items settled, submits stored, given back, dead, disconnects while holding, bad submits."""

# A node adds what it counted up to half past a second to that second: so each second has one such count of each node.
#
# $1 services
# $2 items settled
# $3 submits stored
# $4 buckets given back
# $5 buckets that died
# $6 disconnects while holding
# $7 bad submits
_ADD = """
INSERT INTO history AS h (step, at, service_id, settled, submits, given_back, dead, disconnects, bad_submits)
SELECT s.step, date_trunc(s.step, now() - interval '0.5 seconds'), d.service_id,
       d.settled, d.submits, d.given_back, d.dead, d.disconnects, d.bad_submits
  FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS d (service_id, settled, submits, given_back, dead, disconnects, bad_submits)
 CROSS JOIN (VALUES ('hour'), ('minute'), ('second')) AS s (step)
 ORDER BY 1, 2, 3
ON CONFLICT (step, at, service_id) DO UPDATE
   SET settled = h.settled + excluded.settled, submits = h.submits + excluded.submits,
       given_back = h.given_back + excluded.given_back, dead = h.dead + excluded.dead,
       disconnects = h.disconnects + excluded.disconnects, bad_submits = h.bad_submits + excluded.bad_submits"""


async def add(db: Connection, counts: Sequence[tuple[ServiceId, Counts]]) -> None:
    """Add what a node counted of each service, to this second, minute and hour."""
    services = [service for service, _ in counts]
    await db.execute(_ADD, services, *([numbers[n] for _, numbers in counts] for n in range(6)))


_BEGIN_FLUSH = """
INSERT INTO counter_flush AS f (flusher, number) VALUES ($1, $2)
ON CONFLICT (flusher) DO UPDATE SET number = excluded.number, at = now() WHERE f.number < excluded.number
RETURNING number"""


async def begin_flush(db: Connection, flusher: UUID, number: int) -> bool:
    """Note that this transaction adds the counts of that number; False if another one has added them."""
    return await db.fetchval(_BEGIN_FLUSH, flusher, number) is not None


_SECONDS = """
SELECT now() AS now, h.at, h.service_id, h.settled, h.submits
  FROM (VALUES (1)) AS x (one) LEFT JOIN history h ON h.step = 'second' AND h.at >= now() - make_interval(secs => $1)"""


@dataclass(frozen=True, slots=True)
class ServiceSecond:
    """One second of one service: items settled and submits stored; `at` in seconds since 1970."""

    at: int
    service_id: ServiceId
    settled: int
    submits: int


async def seconds(db: Connection, last: float) -> tuple[float, list[ServiceSecond]]:
    """Load the database's time, and the rows of the last so many seconds; the newest one or two are still to grow."""
    rows = await db.fetch(_SECONDS, last)
    now: datetime = rows[0]["now"]
    return now.timestamp(), [
        ServiceSecond(int(row["at"].timestamp()), ServiceId(row["service_id"]), row["settled"], row["submits"])
        for row in rows
        if row["at"] is not None
    ]


_MINUTES = """
SELECT s.service_id, m.at, m.settled
  FROM service s
 CROSS JOIN LATERAL (
    SELECT at, settled FROM history
     WHERE service_id = s.service_id AND step = 'minute' AND settled > 0
       AND at <= date_trunc('minute', now() - interval '0.5 seconds')
     ORDER BY at DESC LIMIT $1) m"""


async def active_minutes(db: Connection, most: int) -> dict[ServiceId, list[tuple[int, int]]]:
    """Load the last minutes of each service that had items settled, however long ago: (start, items), newest first.

    The start is in minutes since 1970; the newest one may not be over yet.
    """
    found: dict[ServiceId, list[tuple[int, int]]] = {}
    for row in await db.fetch(_MINUTES, most):
        minute = int(row["at"].timestamp()) // 60
        found.setdefault(ServiceId(row["service_id"]), []).append((minute, row["settled"]))
    return found


_HISTORY_PAGE = """
SELECT at, service_id, settled, submits AS buckets, given_back, dead, disconnects, bad_submits FROM history
 WHERE step = $1 AND (at, service_id) < ($2, $3) AND at >= $4
 ORDER BY at DESC, service_id DESC LIMIT $5"""

_HISTORY_PAGE_OF_SERVICE = """
SELECT at, service_id, settled, submits AS buckets, given_back, dead, disconnects, bad_submits FROM history
 WHERE service_id = $6 AND step = $1 AND (at, service_id) < ($2, $3) AND at >= $4
 ORDER BY at DESC LIMIT $5"""


async def page(
    db: Connection, step: Step, before: tuple[datetime, int], since: datetime, limit: int, service: ServiceId | None
) -> list[dict[str, Any]]:
    """List rows of one step, newest first, from before `before` (time, service) on."""
    if service is None:
        return [dict(row) for row in await db.fetch(_HISTORY_PAGE, step, *before, since, limit)]
    return [dict(row) for row in await db.fetch(_HISTORY_PAGE_OF_SERVICE, step, *before, since, limit, service)]


KINDS_OF_A_STEP = 16
"""Kinds of results of one service that a minute or an hour has; further ones are counted together, as `OTHER_KINDS`.

A plugin may make a kind of what a client wrote.
"""

# $1 services
# $2 kinds
# $3 results
# $4 kinds of a step
# $5 the kind of further ones
_ADD_KINDS = """
INSERT INTO history_kind AS k (step, at, service_id, label, results)
SELECT r.step, r.at, r.service_id, CASE WHEN r.known OR r.there + r.place <= $4 THEN r.label ELSE $5 END,
       sum(r.results)
  FROM (SELECT d.*, h.label IS NOT NULL AS known,
               row_number() OVER (PARTITION BY d.step, d.service_id, h.label IS NULL ORDER BY d.results DESC) AS place,
               (SELECT count(*) FROM history_kind t
                 WHERE t.service_id = d.service_id AND t.step = d.step AND t.at = d.at) AS there
          FROM (SELECT s.step, date_trunc(s.step, now() - interval '0.5 seconds') AS at, n.service_id, n.label,
                       sum(n.results) AS results
                  FROM unnest($1::int[], $2::text[], $3::bigint[]) AS n (service_id, label, results)
                 CROSS JOIN (VALUES ('hour'), ('minute')) AS s (step)
                 GROUP BY s.step, n.service_id, n.label) d
          LEFT JOIN history_kind h USING (service_id, step, at, label)) r
 GROUP BY 1, 2, 3, 4 ORDER BY 3, 1, 2, 4
ON CONFLICT (service_id, step, at, label) DO UPDATE SET results = k.results + excluded.results"""

_KINDS = """
SELECT at, label, results FROM history_kind
 WHERE service_id = $1 AND step = $2 AND at >= $3 AND (at, label) < ($4, $5)
 ORDER BY at DESC, label DESC LIMIT $6"""


async def add_kinds(db: Connection, kinds: Sequence[tuple[ServiceId, str, int]]) -> None:
    """Add (service, kind, results) each to this minute and hour."""
    await db.execute(_ADD_KINDS, *([row[n] for row in kinds] for n in range(3)), KINDS_OF_A_STEP, OTHER_KINDS)


async def kinds(
    db: Connection, service: ServiceId, step: Step, since: datetime, before: tuple[datetime, str], limit: int
) -> list[dict[str, Any]]:
    """List how many results of each kind came in each minute or hour, newest first, from before `before` on."""
    return [dict(row) for row in await db.fetch(_KINDS, service, step, since, *before, limit)]


_SHARES = """
SELECT k.service_id, k.label, sum(k.results)::bigint AS results
  FROM service s JOIN history_kind k USING (service_id)
 WHERE k.step = 'hour' AND k.at >= date_trunc('hour', $2::timestamptz) AND (k.service_id, k.label) > ($3, $4)
   AND ($1::int IS NULL OR s.service_id = $1)
 GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $5"""


async def shares(
    db: Connection, service: ServiceId | None, since: datetime, after: tuple[int, str], limit: int
) -> list[dict[str, Any]]:
    """Count the results of each kind since a time, of one service or of all, by service and kind after `after`."""
    return [dict(row) for row in await db.fetch(_SHARES, service, since, *after, limit)]


_FORGET = (
    "DELETE FROM history WHERE step = 'second' AND at < now() - interval '10 minutes'",
    "DELETE FROM history WHERE step = 'minute' AND at < now() - interval '7 days'",
    "DELETE FROM history_kind WHERE service_id IN (SELECT service_id FROM service) AND step = 'minute'"
    " AND at < now() - interval '7 days'",
    "DELETE FROM counter_flush WHERE at < now() - interval '1 day'",
)


async def forget(db: Connection) -> None:
    """Drop old rows: seconds after minutes, minutes after days; hours are kept."""
    for statement in _FORGET:
        await db.execute(statement)
