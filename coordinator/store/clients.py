"""Identities, their memberships and sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.model import Boot, ClientId, ClientMembership, ServiceId, SessionId
from coordinator.store.pool import Connection


@dataclass(frozen=True, slots=True)
class StoredClient:
    """A row of `client`; `deactivated` is the admin's reason, or None."""

    client_id: ClientId
    secret_hash: bytes | None
    screen_name: str
    registered: bool
    deactivated: str | None


_FIND_CLIENT = "SELECT client_id, secret_hash, screen_name, registered, deactivated FROM client WHERE client_id = $1"

_MEMBERSHIPS = "SELECT service_id, joined, inactive, profile, health FROM membership WHERE client_id = $1"

_COUNTERS = """
SELECT coalesce(sum(assigned), 0)::bigint AS assigned, coalesce(sum(processed), 0)::bigint AS processed,
       coalesce(sum(settled), 0)::bigint AS settled, coalesce(sum(given_back), 0)::bigint AS given_back,
       coalesce(sum(dead), 0)::bigint AS dead, coalesce(sum(disconnects), 0)::bigint AS disconnects,
       coalesce(sum(bad_submits), 0)::bigint AS bad_submits
  FROM membership WHERE client_id = $1"""


async def find(db: Connection, client: ClientId) -> StoredClient | None:
    """Find a client; None if there is none of that id."""
    row = await db.fetchrow(_FIND_CLIENT, client)
    return None if row is None else StoredClient(**row)


async def memberships(db: Connection, client: ClientId) -> list[ClientMembership]:
    """List the services that a client is or was in."""
    return [ClientMembership(**row) for row in await db.fetch(_MEMBERSHIPS, client)]


async def counters(db: Connection, client: ClientId) -> dict[str, int]:
    """Add up a client's own counters over all services."""
    return dict(await db.fetchrow(_COUNTERS, client))


# Whoever comes first binds the secret; the WHERE lets only its holder register again.
_REGISTER = """
INSERT INTO client AS c (client_id, secret_hash, screen_name) VALUES ($1, $2, $3)
ON CONFLICT (client_id) DO UPDATE
   SET screen_name = excluded.screen_name, registered = true,
       secret_hash = coalesce(c.secret_hash, excluded.secret_hash)
 WHERE c.secret_hash = excluded.secret_hash OR c.secret_hash IS NULL
RETURNING client_id"""


async def register(db: Connection, client: ClientId, secret_hash: bytes, screen_name: str) -> bool:
    """Register an identity as a client; False if it is bound to another secret.  Safe to repeat."""
    return await db.fetchval(_REGISTER, client, secret_hash, screen_name) is not None


_UNREGISTER = "UPDATE client SET registered = false WHERE client_id = $1"

_UNBIND = "UPDATE client SET secret_hash = NULL, registered = false WHERE client_id = $1 RETURNING client_id"

_LEAVE_ALL = "UPDATE membership SET joined = false WHERE client_id = $1"


async def unregister(db: Connection, client: ClientId) -> None:
    """End a registration; the secret stays bound, the history stays."""
    await db.execute(_UNREGISTER, client)
    await db.execute(_LEAVE_ALL, client)


_JOIN = """
INSERT INTO membership (client_id, service_id, profile)
SELECT $1, service_id, profile FROM unnest($2::int[], $3::jsonb[]) AS chosen (service_id, profile)
 ORDER BY service_id
ON CONFLICT (client_id, service_id) DO UPDATE
   SET joined = true, profile = excluded.profile, last_access = now(),
       inactive = CASE WHEN membership.inactive = 'admin' THEN 'admin' END"""

_LEAVE = "UPDATE membership SET joined = false WHERE client_id = $1 AND service_id = $2 AND joined"

_ACTIVATE = """
UPDATE membership SET inactive = NULL, last_access = now()
 WHERE client_id = $1 AND service_id = $2 AND inactive IS DISTINCT FROM 'admin'"""


async def join(db: Connection, client: ClientId, profiles: Mapping[ServiceId, str]) -> None:
    """Make memberships (each profile is JSON), or make them active again unless an admin made them inactive."""
    await db.execute(_JOIN, client, list(profiles), list(profiles.values()))


async def leave(db: Connection, client: ClientId, service: ServiceId) -> None:
    """End a membership."""
    await db.execute(_LEAVE, client, service)


async def activate(db: Connection, client: ClientId, service: ServiceId) -> None:
    """Make an idle membership active again."""
    await db.execute(_ACTIVATE, client, service)


_REPORT = """
UPDATE membership SET report_until = now() + make_interval(secs => $3), last_access = now()
 WHERE client_id = $1 AND service_id = $2"""


async def report(db: Connection, client: ClientId, service: ServiceId, seconds: float) -> None:
    """Serve this client nothing of that service for so many seconds; it said itself that it cannot work."""
    await db.execute(_REPORT, client, service, seconds)


_IDLE = """
UPDATE membership m SET inactive = 'idle'
  FROM (SELECT client_id FROM membership
         WHERE service_id = $1 AND joined AND inactive IS NULL AND last_access < now() - make_interval(secs => $2)
           AND NOT EXISTS (SELECT FROM bucket b WHERE b.client_id = membership.client_id AND b.service_id = $1)
           AND client_id <> ALL ($3::text[])
           FOR NO KEY UPDATE SKIP LOCKED) i
 WHERE m.service_id = $1 AND m.client_id = i.client_id
RETURNING m.client_id"""


async def make_idle(
    db: Connection, service: ServiceId, idle_after: float, waiting: Sequence[ClientId]
) -> list[ClientId]:
    """Make clients inactive that did not work for `idle_after` seconds, but for `waiting` ones: they have asked."""
    return [ClientId(row["client_id"]) for row in await db.fetch(_IDLE, service, idle_after, list(waiting))]


_TOUCH = """
UPDATE membership m SET last_access = now()
  FROM (SELECT client_id FROM membership
         WHERE service_id = $1 AND client_id = ANY ($2::text[])
           AND last_access < now() - make_interval(secs => least(60, $3 / 4))
           FOR NO KEY UPDATE SKIP LOCKED) i
 WHERE m.service_id = $1 AND m.client_id = i.client_id"""


async def touch(db: Connection, service: ServiceId, clients: Sequence[ClientId], idle_after: float) -> None:
    """Note that these clients want to work; only once in a while, so that waiting costs nothing."""
    await db.execute(_TOUCH, service, list(clients), idle_after)


_BEGIN_SESSION = """
INSERT INTO session (session_id, client_id, boot, address, agent) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING"""

_END_SESSIONS = "UPDATE session SET ended_at = now() WHERE session_id = ANY ($1::uuid[]) AND ended_at IS NULL"


async def begin_session(
    db: Connection, session: SessionId, client: ClientId, boot: Boot, address: str, agent: str | None
) -> None:
    """Note a connection of a registered client; safe to repeat."""
    await db.execute(_BEGIN_SESSION, session, client, boot, address, agent)


async def end_sessions(db: Connection, sessions: Sequence[SessionId]) -> None:
    """Note the end of connections."""
    await db.execute(_END_SESSIONS, list(sessions))


_PURGE_SESSIONS = """
DELETE FROM session WHERE session_id IN (
    SELECT session_id FROM session WHERE ended_at < now() - interval '7 days' LIMIT 1000 FOR UPDATE SKIP LOCKED)"""


async def purge_sessions(db: Connection) -> None:
    """Forget connections that ended long ago; results name their session without them."""
    await db.execute(_PURGE_SESSIONS)


_CLIENT = """
SELECT client_id, screen_name, state,
       EXISTS (SELECT FROM open_session s WHERE s.client_id = c.client_id) AS connected
  FROM client_total c WHERE client_id = $1"""

_CLIENT_PAGE = """
SELECT c.client_id, c.screen_name, client_state(c.deactivated, c.registered, w.idle) AS state,
       EXISTS (SELECT FROM open_session s WHERE s.client_id = c.client_id) AS connected
  FROM client c
 CROSS JOIN LATERAL (
    SELECT coalesce(bool_and(m.inactive IS NOT NULL), false) AS idle FROM membership m
     WHERE m.client_id = c.client_id AND m.joined) w
 WHERE c.client_id > $1
   AND ($3::text IS NULL OR $3 = client_state(c.deactivated, c.registered, w.idle))
   AND ($4::int IS NULL OR EXISTS (SELECT FROM membership m
                                    WHERE m.client_id = c.client_id AND m.service_id = $4 AND m.joined))
   AND ($5::text IS NULL OR strpos(lower(c.client_id), lower($5)) > 0 OR strpos(lower(c.screen_name), lower($5)) > 0)
   AND ($6::bool IS NULL OR $6 = EXISTS (SELECT FROM membership m
                                          WHERE m.client_id = c.client_id AND m.health = 'flagged'
                                            AND ($4::int IS NULL OR m.service_id = $4)))
 ORDER BY c.client_id LIMIT $2"""

_SERVICES_OF = """
SELECT m.client_id, s.name AS service, m.joined, m.inactive, m.profile, m.assigned, m.processed, m.settled,
       m.given_back, m.dead, m.disconnects, m.bad_submits, m.health, m.health_reason AS reason, m.last_access
  FROM membership m JOIN service s USING (service_id)
 WHERE m.client_id = ANY ($1::text[]) ORDER BY m.client_id, s.name"""


async def find_with_services(db: Connection, client: ClientId) -> dict[str, Any] | None:
    """Find one client with its `services`; None if there is none of that id."""
    found = await _with_services(db, await db.fetch(_CLIENT, client))
    return found[0] if found else None


async def page(
    db: Connection,
    after: str,
    limit: int,
    state: str | None = None,
    service: ServiceId | None = None,
    search: str | None = None,
    flagged: bool | None = None,
) -> list[dict[str, Any]]:
    """List clients by id, from behind `after` on, each with its `services`."""
    return await _with_services(db, await db.fetch(_CLIENT_PAGE, after, limit, state, service, search, flagged))


async def _with_services(db: Connection, found: Sequence[Any]) -> list[dict[str, Any]]:
    rows = [dict(row) for row in found]
    services: dict[str, list[dict[str, Any]]] = {row["client_id"]: [] for row in rows}
    for membership in await db.fetch(_SERVICES_OF, list(services)):
        services[membership["client_id"]].append(dict(membership))
    for row in rows:
        row["services"] = services[row["client_id"]]
    return rows


_DEACTIVATE = "UPDATE client SET deactivated = $2 WHERE client_id = $1 RETURNING client_id"

_DEACTIVATE_IN = """
UPDATE membership SET inactive = 'admin' WHERE client_id = $1 AND service_id = $2 RETURNING client_id"""

_REACTIVATE_IN = """
UPDATE membership SET inactive = NULL, last_access = now()
 WHERE client_id = $1 AND service_id = $2 RETURNING client_id"""


async def deactivate(db: Connection, client: ClientId, service: ServiceId | None, reason: str) -> bool:
    """Take the right to work away, in one service or wholly; False if there is no such client (there)."""
    if service is None:
        return await db.fetchval(_DEACTIVATE, client, reason) is not None
    return await db.fetchval(_DEACTIVATE_IN, client, service) is not None


async def reactivate(db: Connection, client: ClientId, service: ServiceId | None) -> bool:
    """Give the right to work back; False if there is no such client (there)."""
    if service is None:
        return await db.fetchval(_DEACTIVATE, client, None) is not None
    return await db.fetchval(_REACTIVATE_IN, client, service) is not None


async def forget_secret(db: Connection, client: ClientId) -> bool:
    """Unbind an identity from its secret; False if there is no such client."""
    return await db.fetchval(_UNBIND, client) is not None
