"""The settings of each connection: guards on plans, signs of life, an end after some time; and whether they hold.

Between the program and Postgres there may be firewalls, which drop connections without a word, and poolers, which may
give the statements of one connection to several server processes in turn.
"""

from __future__ import annotations

import random
import socket
from time import monotonic
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from coordinator.errors import ConfigError
from coordinator.model import Boot
from coordinator.store.statement_stats import uncounted

MAX_AGE = 3600.0
"""Seconds after which a connection is replaced, a tenth more or less: so a moved address or name is noticed."""

KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
"""Signs of life after 30 s of silence, by which firewalls keep a connection too.

A server is gone that is silent for 45 s, or acknowledges for 5 s (told in ms) nothing of what was sent to it.
"""

ABANDONED_AFTER = 15.0
"""Seconds after which Postgres ends a transaction whose node says nothing: half as much again as a statement may take.

A machine that vanishes leaves its transactions open, and their locks held, until Postgres asks whether it is there: by
default in two hours.
"""

# By statements, not at the connect: poolers refuse settings there that they do not know.
#
# The plan of a queue statement must not follow statistics that are minutes old: all of them have an index to go by, and
# a scan of a table that was small once is what hurts.  Every hot statement is short, so compiling it does not pay.
_SET_GUARDS = "SET jit = off; SET timezone = 'UTC'; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"

# Where the connection is local, the signs of life are not asked for, and setting them does nothing.
#
# $1 milliseconds after which a transaction is abandoned, $2 the name of the session
_SET_ENDS = """
SELECT set_config('application_name', $2, false), pg_backend_pid(),
       set_config('idle_in_transaction_session_timeout', $1, false), set_config('tcp_keepalives_idle', '30', false),
       set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false)"""

_GUARDS_IN_FORCE = """
SELECT current_setting('jit') = 'off' AND current_setting('timezone') = 'UTC'
       AND current_setting('plan_cache_mode') = 'force_generic_plan' AND current_setting('enable_seqscan') = 'off'"""

_PROCESS = "SELECT pg_backend_pid()"

LOOKS_AT_PROCESSES = 3

SHARES_SESSIONS = (
    "database: a pooler gives the statements of one connection to several server processes (PgBouncer in transaction "
    "or statement mode); set pool_mode = session for this database, or connect to Postgres itself"
)


def session_name(boot: Boot | None) -> str:
    """Return the name that the sessions of a start of a node have in the database; None: of no node."""
    return "coordinator" if boot is None else f"coordinator {boot}"


async def prepare(connection: Any, name: str) -> None:
    """Make a new connection ready, as a session of that name."""
    keep_alive(connection)
    connection.retire_at = monotonic() + MAX_AGE * random.uniform(0.9, 1.1)  # noqa: S311 - nobody gains by guessing it
    with uncounted():
        await connection.execute(_SET_GUARDS)
        row = await connection.fetchrow(_SET_ENDS, str(round(ABANDONED_AFTER * 1000)), name)
    connection.server_process = row["pg_backend_pid"]
    # JSON goes in as text that is already encoded, also by COPY, and comes out as objects.
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_jsonb, decoder=_objects, format="binary")


def keep_alive(connection: Any) -> None:
    """Let a connection through a network show whether its other end is there."""
    sock = connection._transport.get_extra_info("socket")  # asyncpg has no other way to it
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def names_several_hosts(dsn: str) -> bool:
    """Return whether a DSN names more than one host."""
    parts = urlsplit(dsn)
    return any("," in hosts for hosts in (parts.netloc.rpartition("@")[2], *parse_qs(parts.query).get("host", [])))


async def check_sessions(one: Any, other: Any) -> None:
    """Check that two connections keep the settings that were made on them, and a server process each.

    Raises:
        ConfigError: they do not.
    """
    if await one.fetchval(_PROCESS) != one.get_server_pid():  # a pooler tells a number of its own
        for _ in range(LOOKS_AT_PROCESSES):
            alone = await one.fetchval(_PROCESS)
            async with other.transaction():
                if await other.fetchval(_PROCESS) == alone or await one.fetchval(_PROCESS) != alone:
                    raise ConfigError(SHARES_SESSIONS)

    for connection in (one, other):
        if not await connection.fetchval(_GUARDS_IN_FORCE):
            raise ConfigError("database: it does not keep the settings of a connection (jit, plan_cache_mode, …)")


def _jsonb(text: str) -> bytes:
    return b"\x01" + text.encode()


def _objects(binary: bytes) -> Any:
    return msgspec.json.decode(binary[1:])
