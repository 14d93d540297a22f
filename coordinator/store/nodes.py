"""Nodes and their leases, by the database's clock."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from math import inf
from typing import Any

from coordinator.model import Boot
from coordinator.store.pool import Connection

NOTIFY_CHANNEL = "coordinator"
"""The NOTIFY channel on which nodes wake and tell each other."""

_BEGIN = """
INSERT INTO node (name, version, lease_until) VALUES ($1, $2, now() + make_interval(secs => $3)) RETURNING boot"""

_END_FORMER_BOOTS = """
UPDATE node SET state = 'gone', ended_at = now(), end_reason = $3
 WHERE name = $1 AND boot <> $2 AND state <> 'gone' RETURNING boot"""

_RENEW = """
UPDATE node SET lease_until = now() + make_interval(secs => $2), load = $3
 WHERE boot = $1 AND state <> 'gone' RETURNING boot"""

_DECLARE_EXPIRED_GONE = """
UPDATE node SET state = 'gone', ended_at = now(), end_reason = $2
 WHERE boot IN (SELECT boot FROM node WHERE state <> 'gone' AND lease_is_over(lease_until) AND boot <> $1
                 ORDER BY boot FOR UPDATE SKIP LOCKED)
RETURNING boot, name"""

_SESSIONS_GONE = """
UPDATE session s SET ended_at = now()
 WHERE ended_at IS NULL AND NOT EXISTS (SELECT FROM node n WHERE n.boot = s.boot AND n.state <> 'gone')"""

_DRAINING = "UPDATE node SET state = 'draining' WHERE boot = $1 AND state = 'live'"

_GONE = "UPDATE node SET state = 'gone', ended_at = now(), end_reason = $2 WHERE boot = $1 AND state <> 'gone'"

# The server process of a node that stands still, or cannot be reached, keeps its locks: in the middle of a COPY it
# waits for more, whatever timeouts there are.  The name of its session is that of `connecting.session_name`.
#
# $1 start of this node
# $2 processes that this node has given up
_END_ABANDONED = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity a
 WHERE datname = current_database() AND usename = current_user
   AND (EXISTS (SELECT FROM node n WHERE n.state = 'gone' AND a.application_name = 'coordinator ' || n.boot)
        OR a.application_name = 'coordinator ' || $1::bigint AND pid = ANY ($2::int[]))"""

_OTHERS = """
SELECT count(*) AS others, extract(epoch FROM min(lease_until) - now())::float8 AS left
  FROM node WHERE boot <> $1 AND state <> 'gone'"""

_LIST = """
SELECT name AS node, boot, state, lease_until, version, started_at FROM node WHERE boot > $1 ORDER BY boot LIMIT $2"""

_NOTIFY = "SELECT pg_notify('coordinator', $1)"


async def begin(db: Connection, name: str, version: str, lease: float) -> Boot:
    """Begin a new start of the node of that name, with a lease of so many seconds."""
    return Boot(await db.fetchval(_BEGIN, name, version, lease))


async def end_former_boots(db: Connection, name: str, boot: Boot, reason: str) -> list[Boot]:
    """End the former starts of the same name; returns those that had not ended."""
    return [Boot(row["boot"]) for row in await db.fetch(_END_FORMER_BOOTS, name, boot, reason)]


async def renew(db: Connection, boot: Boot, lease: float, load: str = "{}") -> bool:
    """Renew the lease and tell the node's load (JSON); False if another node has declared this one gone."""
    return await db.fetchval(_RENEW, boot, lease, load) is not None


_RUNNING = """
SELECT name AS node, boot, state, lease_until, version, started_at, load, ended_at, end_reason
  FROM node WHERE state <> 'gone' ORDER BY boot"""


async def running(db: Connection) -> list[dict[str, Any]]:
    """List the nodes that run, each with the load that it told last."""
    return [dict(row) for row in await db.fetch(_RUNNING)]


_IS_LIVE = "SELECT EXISTS (SELECT FROM node WHERE name = $1 AND state = 'live')"


async def is_live(db: Connection, name: str) -> bool:
    """Whether a node of that name runs and does not drain."""
    return bool(await db.fetchval(_IS_LIVE, name))


async def declare_expired_gone(db: Connection, boot: Boot, reason: str) -> dict[Boot, str]:
    """Declare nodes gone whose lease has run out; returns their starts and names, each to one caller only."""
    return {Boot(row["boot"]): row["name"] for row in await db.fetch(_DECLARE_EXPIRED_GONE, boot, reason)}


async def end_sessions(db: Connection) -> None:
    """Note the end of all connections of nodes that are gone."""
    await db.execute(_SESSIONS_GONE)


async def set_draining(db: Connection, boot: Boot) -> None:
    """Note that a node drains."""
    await db.execute(_DRAINING, boot)


async def end(db: Connection, boot: Boot, reason: str) -> None:
    """Note the regular end of a node, unless another one has declared it gone."""
    await db.execute(_GONE, boot, reason)


async def others(db: Connection, boot: Boot) -> tuple[int, float]:
    """Count the other nodes that run, and the seconds until the first of their leases ends if it is not renewed."""
    row = await db.fetchrow(_OTHERS, boot)
    return row["others"], inf if row["left"] is None else row["left"]


async def end_abandoned(db: Connection, boot: Boot, given_up: Collection[int]) -> int:
    """End the server processes of nodes that are gone, and those that this node has given up; counts them."""
    return int(await db.fetchval(_END_ABANDONED, boot, given_up))


async def page(db: Connection, after: int, limit: int) -> list[dict[str, Any]]:
    """List starts of nodes, in order."""
    return [dict(row) for row in await db.fetch(_LIST, after, limit)]


_NEWEST = """
SELECT name AS node, boot, state, lease_until, version, started_at, load, ended_at, end_reason FROM node
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


_IS_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on'"


async def is_read_only(db: Connection) -> bool:
    """Whether the database takes no changes: a standby, or one that was set so."""
    return bool(await db.fetchval(_IS_READ_ONLY))
