"""The kinds of trouble: what is done to Postgres, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from tests.chaos.proxy import Proxy
from tests.trouble.server import TroubledPostgres


@dataclass(frozen=True, slots=True)
class Place:
    """Where trouble is made: the server, and the way of the node to it."""

    postgres: TroubledPostgres
    way: Proxy


Trouble: TypeAlias = Callable[[Place], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its name, what is done in words, and how.

    `normal_within`: seconds after its end in which all goes on; `quick`: it takes little time to show.
    """

    name: str
    done: str
    trouble: Trouble
    normal_within: float = 10.0
    quick: bool = False


def _for_node(setting: str, value: str) -> Trouble:
    @asynccontextmanager
    async def trouble(place: Place) -> AsyncIterator[None]:
        await place.postgres.set_for_node(setting, value)
        yield
        await place.postgres.set_for_node(setting, None)

    return trouble


@asynccontextmanager
async def _read_only(place: Place) -> AsyncIterator[None]:
    """Connections that are made meanwhile stay read-only until they are thrown away."""
    await place.postgres.set_for_node("default_transaction_read_only", "on")
    yield
    await place.postgres.execute("ALTER ROLE node RESET default_transaction_read_only")


@asynccontextmanager
async def _rotated_password(place: Place) -> AsyncIterator[None]:
    postgres = place.postgres
    before = postgres.passfile.read_text()
    password = postgres.new_password()
    after = postgres.passfile.read_text()
    postgres.passfile.write_text(before)
    await postgres.execute(f"ALTER ROLE node PASSWORD '{password}'")
    await postgres.end_connections()
    yield
    postgres.passfile.write_text(after)


@asynccontextmanager
async def _no_connections_allowed(place: Place) -> AsyncIterator[None]:
    await place.postgres.execute("ALTER DATABASE coordinator ALLOW_CONNECTIONS false")
    await place.postgres.end_connections()
    yield
    await place.postgres.execute("ALTER DATABASE coordinator ALLOW_CONNECTIONS true")


@asynccontextmanager
async def _renamed(place: Place) -> AsyncIterator[None]:
    async with asyncio.timeout(10):
        while True:
            await place.postgres.execute("ALTER DATABASE coordinator ALLOW_CONNECTIONS false")
            await place.postgres.end_connections()
            with contextlib.suppress(asyncpg.ObjectInUseError):
                await place.postgres.execute("ALTER DATABASE coordinator RENAME TO elsewhere")
                break
    yield
    await place.postgres.execute(
        "ALTER DATABASE elsewhere RENAME TO coordinator", "ALTER DATABASE coordinator ALLOW_CONNECTIONS true"
    )


@asynccontextmanager
async def _locked_out(place: Place) -> AsyncIterator[None]:
    await place.postgres.set_for_node("lock_timeout", "20ms")
    async with place.postgres.connected("coordinator") as db, db.transaction():
        await db.execute("LOCK TABLE bucket, membership IN ACCESS EXCLUSIVE MODE")
        yield
    await place.postgres.set_for_node("lock_timeout", None)


@asynccontextmanager
async def _few_connections(place: Place) -> AsyncIterator[None]:
    await place.postgres.execute("ALTER ROLE node CONNECTION LIMIT 1")
    await place.postgres.end_connections()
    yield
    await place.postgres.execute("ALTER ROLE node CONNECTION LIMIT -1")


@asynccontextmanager
async def _no_shared_memory(place: Place) -> AsyncIterator[None]:
    async with place.postgres.connected("coordinator") as db:
        n = 0
        with contextlib.suppress(asyncpg.OutOfMemoryError):
            while True:
                await db.execute(f"SELECT pg_advisory_lock(9, n) FROM generate_series({n}, {n + 999}) AS n")
                n += 1000
        yield


@asynccontextmanager
async def _full_disk(place: Place) -> AsyncIterator[None]:
    """No room is left for tables; the log of changes stands on another disk."""
    ballast = place.postgres.disk / "ballast"
    async with place.postgres.connected("coordinator") as db:  # before: a new connection may have to write a file
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(8192))
        with contextlib.suppress(asyncpg.DiskFullError):  # the room that tables have already is used up
            while True:
                await db.execute("INSERT INTO activity (who, action, outcome) SELECT 'x', 'x', repeat('x', 5000)")
    yield
    ballast.unlink()


@asynccontextmanager
async def _crash(place: Place) -> AsyncIterator[None]:
    await place.postgres.kill_a_process()
    yield


@asynccontextmanager
async def _restart(place: Place) -> AsyncIterator[None]:
    await asyncio.to_thread(place.postgres.server.stop)
    yield
    await asyncio.to_thread(place.postgres.server.start)


@asynccontextmanager
async def _ended(place: Place) -> AsyncIterator[None]:
    await place.postgres.end_connections()
    yield


@asynccontextmanager
async def _dropped(place: Place) -> AsyncIterator[None]:
    """Connections that there are hear and say nothing any more, for ever; new ones work."""
    place.way.swallow("up", "down")
    yield


KINDS = (
    Kind("ended", "all connections of the node are ended", _ended, quick=True),
    Kind("read-only", "sessions are read-only, as on a server that has become a standby", _read_only, quick=True),
    Kind("password", "the password is changed, and told to the node later", _rotated_password, quick=True),
    Kind("connections", "ALLOW_CONNECTIONS false, and all are ended", _no_connections_allowed, quick=True),
    Kind("lock_timeout", "lock_timeout = 20ms, and tables are locked", _locked_out, quick=True),
    Kind("transaction_timeout", "transaction_timeout = 1ms", _for_node("transaction_timeout", "1ms"), quick=True),
    Kind("idle in transaction", "idle_in_transaction_session_timeout = 1ms",
         _for_node("idle_in_transaction_session_timeout", "1ms")),
    Kind("statement_timeout", "statement_timeout = 1ms", _for_node("statement_timeout", "1ms")),
    Kind("idle_session_timeout", "idle_session_timeout = 1ms", _for_node("idle_session_timeout", "1ms")),
    Kind("too many connections", "CONNECTION LIMIT 1, and all are ended", _few_connections),
    Kind("shared memory", "others hold all locks that there is memory for", _no_shared_memory),
    Kind("disk full", "the disk of the tables is filled", _full_disk),
    Kind("recovery", "a process is killed: the server recovers", _crash, quick=True),
    Kind("restart", "the server is stopped, and started again", _restart),
    Kind("renamed", "the database is renamed, and back", _renamed),
    Kind("firewall", "connections lose all that is sent, and nobody is told", _dropped, normal_within=30.0),
)  # fmt: skip
