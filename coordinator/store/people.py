"""Clients as those see them who watch: sums over their services, in any order, and how many there are of each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

Sort = Literal["client_id", "settled", "held", "dead", "given_back", "last_access"]

ACTIVE = 120.0
"""Seconds for which a client counts as active after it worked, or wanted to (which is noted once a minute)."""

_PEOPLE = """
SELECT (SELECT count(*) FROM client WHERE registered) AS registered,
       (SELECT count(DISTINCT s.client_id) FROM session s JOIN node n USING (boot)
         WHERE s.ended_at IS NULL AND n.state <> 'gone') AS connected,
       (SELECT count(DISTINCT m.client_id) FROM service s
         CROSS JOIN LATERAL (SELECT client_id FROM membership m
                              WHERE m.service_id = s.service_id AND m.joined AND m.inactive IS NULL
                                AND m.last_access > now() - make_interval(secs => $1)) m) AS active,
       (SELECT count(*) FROM client WHERE deactivated IS NOT NULL) AS deactivated,
       h.watched, h.flagged
  FROM (SELECT count(*) FILTER (WHERE NOT flagged) AS watched, count(*) FILTER (WHERE flagged) AS flagged
          FROM (SELECT bool_or(health = 'flagged') AS flagged FROM membership
                 WHERE health <> 'ok' GROUP BY client_id) unwell) h"""

_ACTIVE_IN = """
SELECT s.service_id, (SELECT count(*) FROM membership m
                       WHERE m.service_id = s.service_id AND m.joined AND m.inactive IS NULL
                         AND m.last_access > now() - make_interval(secs => $1)) AS active
  FROM service s"""


@dataclass(frozen=True, slots=True)
class People:
    """How many clients there are of each kind, and the active ones of each service."""

    registered: int
    connected: int
    active: int
    watched: int
    flagged: int
    deactivated: int
    active_in: dict[ServiceId, int]


async def people(db: Connection) -> People:
    """Count clients."""
    row = await db.fetchrow(_PEOPLE, ACTIVE)
    active_in = {ServiceId(one["service_id"]): one["active"] for one in await db.fetch(_ACTIVE_IN, ACTIVE)}
    return People(**dict(row), active_in=active_in)


# $1 state, $2 service, $3 search, $4 health.  What can be said of a client without its sums is said first, so that
# they are not made of those who are not wanted.
_WHERE = """
   AND ($1::text IS NULL OR ($1 = 'deactivated') = (c.deactivated IS NOT NULL))
   AND ($1::text IS NULL OR $1 = 'deactivated' OR ($1 = 'unregistered') = (NOT c.registered))
   AND ($4::text IS NULL OR $4 = 'ok'
        OR c.client_id IN (SELECT u.client_id FROM membership u WHERE u.health <> 'ok'))
   AND ($1::text IS NULL OR $1 = CASE WHEN c.deactivated IS NOT NULL THEN 'deactivated'
                                      WHEN NOT c.registered THEN 'unregistered'
                                      WHEN w.idle THEN 'inactive' ELSE 'active' END)
   AND ($2::int IS NULL OR EXISTS (SELECT FROM membership j
                                    WHERE j.client_id = c.client_id AND j.service_id = $2 AND j.joined))
   AND ($3::text IS NULL OR strpos(lower(c.client_id), lower($3)) > 0 OR strpos(lower(c.screen_name), lower($3)) > 0)
   AND ($4::text IS NULL OR $4 = (ARRAY['ok', 'watched', 'flagged'])[w.health])"""

_SUMS = """
    SELECT sum(m.settled)::bigint AS settled, sum(m.given_back)::bigint AS given_back, sum(m.dead)::bigint AS dead,
           max(m.last_access) AS last_access, bool_and(m.inactive IS NOT NULL) FILTER (WHERE m.joined) AS idle,
           max(CASE m.health WHEN 'flagged' THEN 3 WHEN 'watched' THEN 2 ELSE 1 END) AS health"""

_ROW = """
SELECT c.client_id, c.screen_name, c.registered, c.deactivated, w.*,
       (SELECT count(*) FROM bucket b WHERE b.client_id = c.client_id) AS held"""

_ALL_OF_IT = """
 CROSS JOIN LATERAL (
    SELECT coalesce(s.settled, 0) AS settled, coalesce(s.given_back, 0) AS given_back, coalesce(s.dead, 0) AS dead,
           s.last_access, coalesce(s.idle, false) AS idle, coalesce(s.health, 1) AS health) w"""

_EACH = (
    _ROW
    + "\n  FROM client c CROSS JOIN LATERAL ("
    + _SUMS
    + " FROM membership m WHERE m.client_id = c.client_id) s"
    + _ALL_OF_IT
)

# The one that $6 names, if it is like that.
_ONE = _EACH + "\n WHERE c.client_id = $6" + _WHERE + "\n LIMIT $5"

# By id, from behind $6 on: stops when it has a page.
_BY_ID = _EACH + "\n WHERE c.client_id > $6" + _WHERE + "\n ORDER BY c.client_id LIMIT $5"

# In any other order ($8) all memberships are added up.  $6 and $7: client and value of the last row.
_BY_VALUE = (
    """
SELECT c.*, (SELECT count(*) FROM bucket b WHERE b.client_id = c.client_id) AS held
  FROM (
    SELECT c.client_id, c.screen_name, c.registered, c.deactivated, w.*,
           CASE $8 WHEN 'settled' THEN w.settled WHEN 'dead' THEN w.dead WHEN 'given_back' THEN w.given_back
                   WHEN 'held' THEN coalesce(b.held, 0)
                   ELSE coalesce((extract(epoch FROM w.last_access) * 1000000)::bigint, 0) END AS value
      FROM client c LEFT JOIN ("""
    + _SUMS
    + """, m.client_id AS id FROM membership m GROUP BY m.client_id) s ON s.id = c.client_id
      LEFT JOIN (SELECT client_id AS id, count(*) AS held FROM bucket
                  WHERE client_id IS NOT NULL AND $8 = 'held' GROUP BY client_id) b ON b.id = c.client_id"""
    + _ALL_OF_IT
    + "\n WHERE true"
    + _WHERE
    + """) c
 WHERE $7::bigint IS NULL OR c.value < $7 OR (c.value = $7 AND c.client_id > $6)
 ORDER BY c.value DESC, c.client_id LIMIT $5"""
)

_MEMBERSHIPS_OF = """
SELECT m.client_id, m.service_id, m.joined, m.inactive, m.assigned, m.processed, m.settled, m.given_back, m.dead,
       m.disconnects, m.bad_submits, m.health, m.health_reason, m.last_access,
       (SELECT count(*) FROM bucket b WHERE b.client_id = m.client_id AND b.service_id = m.service_id) AS held
  FROM membership m WHERE m.client_id = ANY ($1::text[]) ORDER BY m.client_id, m.service_id"""

_SESSIONS_OF = """
SELECT s.client_id, count(*) AS connected FROM session s JOIN node n USING (boot)
 WHERE s.client_id = ANY ($1::text[]) AND s.ended_at IS NULL AND n.state <> 'gone' GROUP BY s.client_id"""


@dataclass(frozen=True, slots=True)
class Which:
    """Which clients: of that state, joined to that service, with that in id or screen name, of that (worst) health.

    `client` is one that is named.
    """

    state: str | None = None
    service: ServiceId | None = None
    search: str | None = None
    health: str | None = None
    client: str | None = None


Place = tuple[str, int]
"""Client and value of what is sorted by: where a page ends."""


async def page(
    db: Connection, which: Which, sort: Sort, after: Place | None, limit: int
) -> tuple[list[dict[str, Any]], Place | None]:
    """Clients, the largest value of `sort` first (`client_id`: in order), from behind `after` on; and where it ends.

    Each row has `services`, `connected` (sessions), and sums over the services; `health` is 1 to 3.
    """
    client, value = after or ("", None)
    filters = (which.state, which.service, which.search, which.health, limit)
    if which.client is not None:
        found = [] if after is not None else await db.fetch(_ONE, *filters, which.client)
    elif sort == "client_id":
        found = await db.fetch(_BY_ID, *filters, client)
    else:
        found = await db.fetch(_BY_VALUE, *filters, client, value, sort)
    rows = [dict(row) for row in found]
    by_id = {row["client_id"]: row for row in rows}
    for row in rows:
        row.update(services=[], connected=0)
    for one in await db.fetch(_MEMBERSHIPS_OF, list(by_id)):
        by_id[one["client_id"]]["services"].append(dict(one))
    for one in await db.fetch(_SESSIONS_OF, list(by_id)):
        by_id[one["client_id"]]["connected"] = one["connected"]
    if len(rows) < limit:
        return rows, None
    return rows, (rows[-1]["client_id"], rows[-1].get("value", 0))
