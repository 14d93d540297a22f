"""Identities, their memberships and sessions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coordinator.model import Boot, ClaimNumber, ClientId, ClientMembership, Demand, ReportKind, ServiceId, SessionId
from coordinator.store.pool import Connection


@dataclass(frozen=True, slots=True)
class StoredClient:
    """A row of `client`; `deactivated` is the admin's reason, or None."""

    client_id: ClientId
    secret_hash: bytes | None
    screen_name: str
    registered: bool
    deactivated: str | None


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client with the services that it is or was in, and its own counters, added up over all of them."""

    client: StoredClient
    memberships: list[ClientMembership]
    counters: dict[str, int]


COUNTERS = ("assigned", "processed", "settled", "given_back", "dead", "disconnects", "bad_submits")
"""The counters of a client, as `welcome` tells them."""

_FIND_CLIENT = "SELECT client_id, secret_hash, screen_name, registered, deactivated FROM client WHERE client_id = $1"

# The memberships of each client are looked up by themselves: a join that was planned while there were few compares all.
_READ = """
SELECT c.client_id, c.secret_hash, c.screen_name, c.registered, c.deactivated, m.service_id, m.joined, m.inactive,
       m.profile, m.health, m.taken_back, m.assigned, m.processed, m.settled, m.given_back, m.dead, m.disconnects,
       m.bad_submits
  FROM client c LEFT JOIN LATERAL (SELECT * FROM membership WHERE client_id = c.client_id OFFSET 0) m ON true
 WHERE c.client_id = ANY ($1::text[])"""


async def find(db: Connection, client: ClientId) -> StoredClient | None:
    """Find a client; None if there is none of that id."""
    row = await db.fetchrow(_FIND_CLIENT, client)
    return None if row is None else StoredClient(**row)


async def read(db: Connection, chosen: Collection[ClientId]) -> dict[ClientId, KnownClient]:
    """Read all that a node goes by of those of these clients that there are."""
    found: dict[ClientId, KnownClient] = {}
    for row in await db.fetch(_READ, list(chosen)):
        client = ClientId(row["client_id"])
        known = found.get(client)
        if known is None:
            stored = StoredClient(client, row["secret_hash"], row["screen_name"], row["registered"], row["deactivated"])
            known = found[client] = KnownClient(stored, [], dict.fromkeys(COUNTERS, 0))

        if row["service_id"] is not None:
            known.memberships.append(
                ClientMembership(
                    ServiceId(row["service_id"]),
                    row["joined"],
                    row["inactive"],
                    row["profile"],
                    row["health"],
                    row["settled"] > row["taken_back"],
                )
            )
            for name in COUNTERS:
                known.counters[name] += row[name]
    return found


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
WITH before AS MATERIALIZED (
    SELECT report_until FROM membership WHERE client_id = $1 AND service_id = $2 FOR NO KEY UPDATE)
UPDATE membership m SET report_until = now() + make_interval(secs => $3), report_kind = $4, last_access = now()
  FROM before WHERE client_id = $1 AND service_id = $2
RETURNING before.report_until > now() AS had_reported"""


async def report(db: Connection, client: ClientId, service: ServiceId, seconds: float, kind: ReportKind) -> bool:
    """Serve this client nothing of that service for so many seconds; it said itself that it cannot work.

    Returns whether it had said so before, for a time that is not over yet.
    """
    return bool(await db.fetchval(_REPORT, client, service, seconds, kind))


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


# Locked against `pruning.forget_clients`, which forgets only whom it has locked and who has no session.
_BEGIN_SESSION = """
INSERT INTO session (session_id, client_id, boot, address, agent)
SELECT $1, client_id, $3, $4, $5 FROM client WHERE client_id = $2 FOR KEY SHARE
ON CONFLICT DO NOTHING RETURNING session_id"""

# The same for many, but for those whose client somebody else has locked: nobody waits for that but the one whom it is.
_BEGIN_SESSIONS = """
WITH locked AS MATERIALIZED (
    SELECT client_id FROM client WHERE client_id = ANY ($2::text[]) ORDER BY client_id FOR KEY SHARE SKIP LOCKED)
INSERT INTO session (session_id, client_id, boot, address, agent)
SELECT b.session_id, client_id, $3, b.address, b.agent
  FROM unnest($1::uuid[], $2::text[], $4::text[], $5::text[]) AS b (session_id, client_id, address, agent)
  JOIN locked USING (client_id)
ON CONFLICT DO NOTHING RETURNING session_id"""

_END_SESSIONS = "UPDATE session SET ended_at = now() WHERE session_id = ANY ($1::uuid[]) AND ended_at IS NULL"


@dataclass(frozen=True, slots=True)
class NewSession:
    """A connection of a registered client that begins."""

    session_id: SessionId
    client_id: ClientId
    address: str
    agent: str | None


async def begin_session(db: Connection, session: NewSession, boot: Boot) -> bool:
    """Note a connection; False if it was noted before, or the client was just forgotten."""
    chosen = session.session_id, session.client_id, boot, session.address, session.agent
    return await db.fetchval(_BEGIN_SESSION, *chosen) is not None


async def begin_sessions(db: Connection, sessions: Sequence[NewSession], boot: Boot) -> set[SessionId]:
    """Note connections, and return which; what is left out is left to `begin_session`."""
    rows = await db.fetch(
        _BEGIN_SESSIONS,
        [session.session_id for session in sessions],
        [session.client_id for session in sessions],
        boot,
        [session.address for session in sessions],
        [session.agent for session in sessions],
    )
    return {SessionId(row["session_id"]) for row in rows}


_OPEN_SESSIONS = """
SELECT s.session_id, n.name AS node, s.address, s.agent, s.began_at AS since
  FROM session s JOIN node n USING (boot)
 WHERE s.client_id = $1 AND s.ended_at IS NULL AND n.state <> 'gone'
 ORDER BY s.began_at DESC LIMIT $2"""


async def open_sessions(db: Connection, client: ClientId, limit: int) -> list[dict[str, Any]]:
    """List the connections that a client has now, on whatever node, the newest first."""
    return [dict(row) for row in await db.fetch(_OPEN_SESSIONS, client, limit)]


async def end_sessions(db: Connection, sessions: Sequence[SessionId]) -> None:
    """Note the end of connections."""
    await db.execute(_END_SESSIONS, list(sessions))


# An update without an index to change; what has changed is one row for each session.
_NOTE_WAITS = """
UPDATE session s SET waits_for = c.services::integer[]
  FROM unnest($1::uuid[], $2::text[]) AS c (session_id, services) WHERE s.session_id = c.session_id"""

_WAITING_ELSEWHERE = """
SELECT s.client_id, s.session_id, s.address, s.agent, s.waits_for, n.state = 'draining' AS draining
  FROM session s JOIN node n USING (boot)
 WHERE s.client_id = ANY ($1::text[]) AND s.ended_at IS NULL AND s.waits_for <> '{}'
   AND s.boot <> $2 AND n.state <> 'gone'"""


@dataclass(frozen=True, slots=True)
class WaitingSession:
    """A session of another node that waits for buckets of these services; `draining`: that node is about to end."""

    demand: Demand
    services: Sequence[ServiceId]
    draining: bool


async def note_waits(db: Connection, changed: Mapping[SessionId, Collection[ServiceId]]) -> None:
    """Note for the other nodes which services these sessions wait for."""
    services = ["{" + ",".join(map(str, sorted(of_session))) + "}" for of_session in changed.values()]
    await db.execute(_NOTE_WAITS, list(changed), services)


async def waiting_elsewhere(db: Connection, chosen: Sequence[ClientId], boot: Boot) -> list[WaitingSession]:
    """List the sessions of these clients that wait, but for those of the node `boot`."""
    return [
        WaitingSession(
            Demand(ClientId(row["client_id"]), SessionId(row["session_id"]), row["address"], row["agent"]),
            [ServiceId(service) for service in row["waits_for"]],
            row["draining"],
        )
        for row in await db.fetch(_WAITING_ELSEWHERE, list(chosen), boot)
    ]


_TAKE_BACK = """
WITH marked AS (
    SELECT client_id, service_id, sum(settled) AS n FROM claim WHERE claim_id = ANY ($1::bigint[]) GROUP BY 1, 2),
locked AS MATERIALIZED (
    SELECT m.client_id, m.service_id, marked.n FROM membership m JOIN marked USING (client_id, service_id)
     ORDER BY client_id, service_id FOR NO KEY UPDATE OF m)
UPDATE membership m SET taken_back = greatest(m.taken_back + $2 * l.n, 0)
  FROM locked l WHERE m.client_id = l.client_id AND m.service_id = l.service_id"""


async def take_back(db: Connection, marked: Sequence[ClaimNumber], sign: Literal[1, -1]) -> None:
    """Take from their clients the standing that the results of these claims gave them (1), or give it back (-1)."""
    await db.execute(_TAKE_BACK, list(marked), sign)


_CLIENT = """
SELECT client_id, screen_name, state, deactivated,
       EXISTS (SELECT FROM open_session s WHERE s.client_id = c.client_id) AS connected
  FROM client_total c WHERE client_id = $1"""

_CLIENT_PAGE = """
SELECT c.client_id, c.screen_name, client_state(c.deactivated, c.registered, w.idle) AS state, c.deactivated,
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
SELECT m.client_id, m.service_id, s.name AS service, m.joined, m.inactive, m.inactive_reason, m.profile,
       m.assigned, m.processed, m.settled, m.given_back, m.dead, m.disconnects, m.bad_submits,
       m.health, m.health_reason AS reason, m.last_access, m.streak, m.report_kind,
       CASE WHEN m.report_until > now() THEN m.report_until END AS reported_until,
       CASE WHEN m.wait_until > now() THEN m.wait_until END AS backing_off_until,
       (SELECT count(*) FROM bucket b WHERE b.client_id = m.client_id AND b.service_id = m.service_id) AS held
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
UPDATE membership SET inactive = 'admin', inactive_reason = $3
 WHERE client_id = $1 AND service_id = $2 RETURNING client_id"""

_REACTIVATE_IN = """
UPDATE membership SET inactive = NULL, inactive_reason = NULL, last_access = now()
 WHERE client_id = $1 AND service_id = $2 RETURNING client_id"""


async def deactivate(db: Connection, client: ClientId, service: ServiceId | None, reason: str) -> bool:
    """Take the right to work away, in one service or wholly; False if there is no such client (there)."""
    if service is None:
        return await db.fetchval(_DEACTIVATE, client, reason) is not None
    return await db.fetchval(_DEACTIVATE_IN, client, service, reason) is not None


async def reactivate(db: Connection, client: ClientId, service: ServiceId | None) -> bool:
    """Give the right to work back; False if there is no such client (there)."""
    if service is None:
        return await db.fetchval(_DEACTIVATE, client, None) is not None
    return await db.fetchval(_REACTIVATE_IN, client, service) is not None


async def forget_secret(db: Connection, client: ClientId) -> bool:
    """Unbind an identity from its secret; False if there is no such client."""
    return await db.fetchval(_UNBIND, client) is not None
