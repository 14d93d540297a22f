"""Nodes and their leases, by the database's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from coordinator.model import Boot
from coordinator.store.pool import Connection

NOTIFY_CHANNEL = "coordinator"
"""The NOTIFY channel on which nodes wake and tell each other."""

_BEGIN = """
INSERT INTO node (name, version, lease_until) VALUES ($1, $2, now() + make_interval(secs => $3)) RETURNING boot"""

_END_FORMER_BOOTS = """
UPDATE node SET state = 'gone' WHERE name = $1 AND boot <> $2 AND state <> 'gone' RETURNING boot"""

_RENEW = """
UPDATE node SET lease_until = now() + make_interval(secs => $2), load = $3
 WHERE boot = $1 AND state <> 'gone' RETURNING boot"""

_DECLARE_EXPIRED_GONE = """
UPDATE node SET state = 'gone'
 WHERE boot IN (SELECT boot FROM node WHERE state <> 'gone' AND lease_until < now() AND boot <> $1
                 ORDER BY boot FOR UPDATE SKIP LOCKED)
RETURNING boot"""

_SESSIONS_GONE = """
UPDATE session s SET ended_at = now()
 WHERE ended_at IS NULL AND NOT EXISTS (SELECT FROM node n WHERE n.boot = s.boot AND n.state <> 'gone')"""

_STATE = "UPDATE node SET state = $2 WHERE boot = $1"

_OTHERS = "SELECT count(*) FROM node WHERE boot <> $1 AND state <> 'gone'"

_LIST = """
SELECT name AS node, boot, state, lease_until, version, started_at FROM node WHERE boot > $1 ORDER BY boot LIMIT $2"""

_NOTIFY = "SELECT pg_notify('coordinator', $1)"


async def begin(db: Connection, name: str, version: str, lease: float) -> Boot:
    """Begin a new start of the node of that name, with a lease of so many seconds."""
    return Boot(await db.fetchval(_BEGIN, name, version, lease))


async def end_former_boots(db: Connection, name: str, boot: Boot) -> list[Boot]:
    """End the former starts of the same name; returns those that had not ended."""
    return [Boot(row["boot"]) for row in await db.fetch(_END_FORMER_BOOTS, name, boot)]


async def renew(db: Connection, boot: Boot, lease: float, load: str = "{}") -> bool:
    """Renew the lease and tell the node's load (JSON); False if another node has declared this one gone."""
    return await db.fetchval(_RENEW, boot, lease, load) is not None


_RUNNING = """
SELECT name AS node, boot, state, lease_until, version, started_at, load
  FROM node WHERE state <> 'gone' ORDER BY boot"""


async def running(db: Connection) -> list[dict[str, Any]]:
    """List the nodes that run, each with the load that it told last."""
    return [dict(row) for row in await db.fetch(_RUNNING)]


_IS_LIVE = "SELECT EXISTS (SELECT FROM node WHERE name = $1 AND state = 'live')"


async def is_live(db: Connection, name: str) -> bool:
    """Whether a node of that name runs and does not drain."""
    return bool(await db.fetchval(_IS_LIVE, name))


async def declare_expired_gone(db: Connection, boot: Boot) -> list[Boot]:
    """Declare nodes gone whose lease has run out; returns their starts, each to one caller only."""
    return [Boot(row["boot"]) for row in await db.fetch(_DECLARE_EXPIRED_GONE, boot)]


async def end_sessions(db: Connection) -> None:
    """Note the end of all connections of nodes that are gone."""
    await db.execute(_SESSIONS_GONE)


async def set_state(db: Connection, boot: Boot, state: str) -> None:
    """Set a node's state: `draining`, or `gone` at a regular end."""
    await db.execute(_STATE, boot, state)


async def others(db: Connection, boot: Boot) -> int:
    """Count the other nodes that run."""
    return int(await db.fetchval(_OTHERS, boot))


async def page(db: Connection, after: int, limit: int) -> list[dict[str, Any]]:
    """List starts of nodes, in order."""
    return [dict(row) for row in await db.fetch(_LIST, after, limit)]


_NEWEST = """
SELECT name AS node, boot, state, lease_until, version, started_at, load FROM node
 WHERE boot < $1 AND ($3::text IS NULL OR state = $3) ORDER BY boot DESC LIMIT $2"""


async def newest(db: Connection, before: int, limit: int, state: str | None) -> list[dict[str, Any]]:
    """List starts of nodes, newest first, each with the load that it told last."""
    return [dict(row) for row in await db.fetch(_NEWEST, before, limit, state)]


async def notify(db: Connection, payload: str) -> None:
    """Tell all nodes; a payload takes less than 8,000 bytes."""
    await db.execute(_NOTIFY, payload)


_CLOCK = "SELECT now()"


async def clock(db: Connection) -> datetime:
    """Read the database's clock."""
    now: datetime = await db.fetchval(_CLOCK)
    return now
