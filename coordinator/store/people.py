"""Clients for those who watch: with sums over their services, in any order, and counted by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

Sort = Literal["client_id", "state", "health", "settled", "held", "dead", "given_back", "connected", "last_access"]
Order = Literal["asc", "desc"]

ACTIVE_SECONDS = 120.0
"""Seconds for which a client counts as active after it worked, or asked for work (which is noted once a minute)."""

_COUNT_CLIENTS = """
SELECT (SELECT count(*) FROM client WHERE registered) AS registered,
       (SELECT count(DISTINCT client_id) FROM open_session) AS connected,
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
class ClientTotals:
    """The numbers of clients of each kind, and of the active ones of each service."""

    registered: int
    connected: int
    active: int
    watched: int
    flagged: int
    deactivated: int
    active_in: dict[ServiceId, int]


async def count_clients(db: Connection) -> ClientTotals:
    """Count the clients of each kind."""
    row = await db.fetchrow(_COUNT_CLIENTS, ACTIVE_SECONDS)
    active_in = {
        ServiceId(service["service_id"]): service["active"] for service in await db.fetch(_ACTIVE_IN, ACTIVE_SECONDS)
    }
    return ClientTotals(**dict(row), active_in=active_in)


# The client that $7 names, if it is chosen.
_NAMED = """
SELECT c.client_id, c.screen_name, c.state, c.deactivated, c.settled, c.given_back, c.dead, c.last_access, c.health,
       (SELECT count(*) FROM bucket b WHERE b.client_id = c.client_id) AS held
  FROM client_total c
 WHERE c.client_id = $7
   AND ($1::text IS NULL OR c.state = $1)
   AND ($2::int IS NULL OR EXISTS (SELECT FROM membership j
                                    WHERE j.client_id = c.client_id AND j.service_id = $2 AND j.joined))
   AND ($3::text IS NULL OR strpos(lower(c.client_id), lower($3)) > 0 OR strpos(lower(c.screen_name), lower($3)) > 0)
   AND ($4::text IS NULL OR $4 = (ARRAY['ok', 'watched', 'flagged'])[c.health])
   AND ($5::bool IS NULL OR $5 = EXISTS (SELECT FROM open_session o WHERE o.client_id = c.client_id))
 LIMIT $6"""

# By id, from behind $7 on; stops when it has a page.  $1 state, $2 service that they have joined, $3 what id or screen
# name contain, $4 health (the worst in any service), $5 whether connected, $6 rows.  What can be said of a client
# without its sums is said first, so that they are not made of those who are not wanted.
_BY_ID = """
SELECT c.client_id, c.screen_name, c.state, c.deactivated, c.settled, c.given_back, c.dead, c.last_access, c.health,
       (SELECT count(*) FROM bucket b WHERE b.client_id = c.client_id) AS held
  FROM client_total c
 WHERE c.client_id > $7
   AND ($5::bool IS NULL OR $5 = EXISTS (SELECT FROM open_session o WHERE o.client_id = c.client_id))
   AND ($1::text IS NULL OR ($1 = 'deactivated') = (c.deactivated IS NOT NULL))
   AND ($1::text IS NULL OR $1 = 'deactivated' OR ($1 = 'unregistered') = (NOT c.registered))
   AND ($4::text IS NULL OR $4 = 'ok'
        OR c.client_id IN (SELECT u.client_id FROM membership u WHERE u.health <> 'ok'))
   AND ($2::int IS NULL OR EXISTS (SELECT FROM membership j
                                    WHERE j.client_id = c.client_id AND j.service_id = $2 AND j.joined))
   AND ($3::text IS NULL OR strpos(lower(c.client_id), lower($3)) > 0 OR strpos(lower(c.screen_name), lower($3)) > 0)
   AND ($1::text IS NULL OR c.state = $1)
   AND ($4::text IS NULL OR $4 = (ARRAY['ok', 'watched', 'flagged'])[c.health])
 ORDER BY c.client_id LIMIT $6"""

# The same backwards, from before $7 on; '': from the end.
_BY_ID_BACKWARDS = """
SELECT c.client_id, c.screen_name, c.state, c.deactivated, c.settled, c.given_back, c.dead, c.last_access, c.health,
       (SELECT count(*) FROM bucket b WHERE b.client_id = c.client_id) AS held
  FROM client_total c
 WHERE ($7 = '' OR c.client_id < $7)
   AND ($5::bool IS NULL OR $5 = EXISTS (SELECT FROM open_session o WHERE o.client_id = c.client_id))
   AND ($1::text IS NULL OR ($1 = 'deactivated') = (c.deactivated IS NOT NULL))
   AND ($1::text IS NULL OR $1 = 'deactivated' OR ($1 = 'unregistered') = (NOT c.registered))
   AND ($4::text IS NULL OR $4 = 'ok'
        OR c.client_id IN (SELECT u.client_id FROM membership u WHERE u.health <> 'ok'))
   AND ($2::int IS NULL OR EXISTS (SELECT FROM membership j
                                    WHERE j.client_id = c.client_id AND j.service_id = $2 AND j.joined))
   AND ($3::text IS NULL OR strpos(lower(c.client_id), lower($3)) > 0 OR strpos(lower(c.screen_name), lower($3)) > 0)
   AND ($1::text IS NULL OR c.state = $1)
   AND ($4::text IS NULL OR $4 = (ARRAY['ok', 'watched', 'flagged'])[c.health])
 ORDER BY c.client_id DESC LIMIT $6"""

# By the value of any other column: all memberships are added up.
#
# $1 state
# $2 service that they have joined
# $3 what id or screen name contain
# $4 health, the worst in any service
# $5 whether connected
# $6 rows
# $7 the last row's client
# $8 its value, or null at the beginning
# $9 the column
# $10 1: the largest value first; -1: the smallest
_BY_VALUE = """
SELECT c.*, (SELECT count(*) FROM bucket b WHERE b.client_id = c.client_id) AS held
  FROM (
    SELECT c.client_id, c.screen_name, c.deactivated, client_state(c.deactivated, c.registered, w.idle) AS state, w.*,
           $10 * CASE $9
                 WHEN 'settled' THEN w.settled WHEN 'dead' THEN w.dead WHEN 'given_back' THEN w.given_back
                 WHEN 'held' THEN coalesce(b.held, 0) WHEN 'connected' THEN coalesce(o.sessions, 0)
                 WHEN 'health' THEN w.health
                 WHEN 'state' THEN array_position(ARRAY['unregistered', 'inactive', 'active', 'deactivated'],
                                                  client_state(c.deactivated, c.registered, w.idle))
                 ELSE coalesce((extract(epoch FROM w.last_access) * 1000000)::bigint, 0) END AS value
      FROM client c
      LEFT JOIN membership_total s ON s.client_id = c.client_id
      LEFT JOIN (SELECT client_id AS id, count(*) AS held FROM bucket
                  WHERE client_id IS NOT NULL AND $9 = 'held' GROUP BY client_id) b ON b.id = c.client_id
      LEFT JOIN (SELECT client_id AS id, count(*) AS sessions FROM open_session
                  WHERE $9 = 'connected' GROUP BY client_id) o ON o.id = c.client_id
     CROSS JOIN LATERAL (
        SELECT coalesce(s.settled, 0) AS settled, coalesce(s.given_back, 0) AS given_back, coalesce(s.dead, 0) AS dead,
               s.last_access, coalesce(s.idle, false) AS idle, coalesce(s.health, 1) AS health) w
     WHERE ($2::int IS NULL OR EXISTS (SELECT FROM membership j
                                        WHERE j.client_id = c.client_id AND j.service_id = $2 AND j.joined))
       AND ($3::text IS NULL OR strpos(lower(c.client_id), lower($3)) > 0
            OR strpos(lower(c.screen_name), lower($3)) > 0)
       AND ($1::text IS NULL OR $1 = client_state(c.deactivated, c.registered, w.idle))
       AND ($4::text IS NULL OR $4 = (ARRAY['ok', 'watched', 'flagged'])[w.health])
       AND ($5::bool IS NULL OR $5 = EXISTS (SELECT FROM open_session o WHERE o.client_id = c.client_id))) c
 WHERE $8::bigint IS NULL OR c.value < $8 OR (c.value = $8 AND c.client_id > $7)
 ORDER BY c.value DESC, c.client_id LIMIT $6"""

# How many there are; parameters as above, up to $5.
_COUNT = """
SELECT count(*) FROM client c
  LEFT JOIN membership_total s ON s.client_id = c.client_id
 WHERE ($2::int IS NULL OR EXISTS (SELECT FROM membership j
                                    WHERE j.client_id = c.client_id AND j.service_id = $2 AND j.joined))
   AND ($3::text IS NULL OR strpos(lower(c.client_id), lower($3)) > 0 OR strpos(lower(c.screen_name), lower($3)) > 0)
   AND ($1::text IS NULL OR $1 = client_state(c.deactivated, c.registered, coalesce(s.idle, false)))
   AND ($4::text IS NULL OR $4 = (ARRAY['ok', 'watched', 'flagged'])[coalesce(s.health, 1)])
   AND ($5::bool IS NULL OR $5 = EXISTS (SELECT FROM open_session o WHERE o.client_id = c.client_id))"""

_MEMBERSHIPS_OF = """
SELECT m.client_id, m.service_id, m.joined, m.inactive, m.inactive_reason, m.assigned, m.processed, m.settled,
       m.given_back, m.dead, m.disconnects, m.bad_submits, m.health, m.health_reason, m.last_access,
       m.streak, m.report_kind,
       CASE WHEN m.report_until > now() THEN m.report_until END AS reported_until,
       CASE WHEN m.wait_until > now() THEN m.wait_until END AS backing_off_until,
       (SELECT count(*) FROM bucket b WHERE b.client_id = m.client_id AND b.service_id = m.service_id) AS held
  FROM membership m WHERE m.client_id = ANY ($1::text[]) ORDER BY m.client_id, m.service_id"""

_SESSIONS_OF = """
SELECT client_id, count(*) AS connected FROM open_session
 WHERE client_id = ANY ($1::text[]) GROUP BY client_id"""


@dataclass(frozen=True, slots=True)
class ClientFilter:
    """A choice of clients: by state, service, part of the id or screen name, (worst) health, connected; None: any.

    `client` names a single one.
    """

    state: str | None = None
    service: ServiceId | None = None
    search: str | None = None
    health: str | None = None
    client: str | None = None
    connected: bool | None = None


ClientPlace = tuple[str, int]
"""The end of a page: a client, and its value in the column of the order."""


async def count_matching(db: Connection, which: ClientFilter) -> int:
    """Count the clients of a choice that names no single one."""
    return int(await db.fetchval(_COUNT, which.state, which.service, which.search, which.health, which.connected))


async def page(
    db: Connection,
    which: ClientFilter,
    sort: Sort,
    after: ClientPlace | None,
    limit: int,
    order: Order | None = None,
) -> tuple[list[dict[str, Any]], ClientPlace | None]:
    """List clients from behind `after` on; the largest value of `sort` first, but for ids, unless `order` says it.

    Returns also where the page ends.  Each row has `services`, `connected` (sessions), and sums over the services;
    `health` is 1 to 3.
    """
    client, value = after or ("", None)
    sign = -1 if order == "asc" else 1  # the statement has the largest first
    filters = (which.state, which.service, which.search, which.health, which.connected, limit)
    if which.client is not None:
        found = [] if after is not None else await db.fetch(_NAMED, *filters, which.client)
    elif sort == "client_id":
        found = await db.fetch(_BY_ID_BACKWARDS if order == "desc" else _BY_ID, *filters, client)
    else:
        found = await db.fetch(_BY_VALUE, *filters, client, None if value is None else sign * value, sort, sign)

    rows = [dict(row) for row in found]
    by_id = {row["client_id"]: row for row in rows}
    for row in rows:
        row.update(services=[], connected=0)
    for membership in await db.fetch(_MEMBERSHIPS_OF, list(by_id)):
        by_id[membership["client_id"]]["services"].append(dict(membership))
    for sessions in await db.fetch(_SESSIONS_OF, list(by_id)):
        by_id[sessions["client_id"]]["connected"] = sessions["connected"]

    if len(rows) < limit:
        return rows, None
    return rows, (rows[-1]["client_id"], sign * rows[-1].get("value", 0))
