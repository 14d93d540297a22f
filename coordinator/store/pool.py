"""Connections to Postgres, and the line between its faults and ours.

Every statement has a deadline.  An error that means "the database cannot be reached or did not answer" leaves here
as `Unavailable`; anything else that asyncpg raises is a fault of this program and is let through.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any, TypeAlias

import asyncpg
import msgspec

from coordinator.errors import ConfigError, Unavailable
from coordinator.store.statement_stats import StatementStats, counted_by, uncounted

Connection: TypeAlias = Any
"""An asyncpg connection (which has no types of its own)."""

STATEMENT_DEADLINE = 10.0
"""Seconds that one statement may take."""

CONNECT_DEADLINE = 5.0

UNAVAILABLE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
)
"""Exceptions that are the database's fault; after most of them nobody knows whether the statement was carried out."""

# A message that nobody reads: the least that a transaction can write, and so waits for.
_FLUSH = "SELECT pg_logical_emit_message(true, 'coordinator', '')"

OLDEST_POSTGRES, NEWEST_POSTGRES = 14, 18
"""The versions of Postgres that the tests know."""


class Database:
    """A pool of connections; `load` counts what goes through them."""

    def __init__(self, dsn: str, *, size: int = 10) -> None:
        self.dsn = dsn
        self.load = StatementStats()
        self._connection_class = counted_by(self.load)
        self.size = size
        self._taken = 0
        self._pool: Any = None

    async def open(self) -> None:
        """Connect.

        Raises:
            Unavailable: it cannot be reached.
            ConfigError: it is no Postgres that this program runs on.
        """
        try:
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=2,
                max_size=self.size,
                connection_class=self._connection_class,
                timeout=CONNECT_DEADLINE,
                command_timeout=STATEMENT_DEADLINE,
                # What a connection has learned is kept: learning it anew would be somebody's wait.
                max_inactive_connection_lifetime=0,
                max_cached_statement_lifetime=0,
                max_queries=sys.maxsize,
                init=_prepare,
                reset=_leave_as_is,
                server_settings={
                    "application_name": "coordinator",
                    "jit": "off",  # every hot statement is short
                    "timezone": "UTC",
                    # The plan of a queue statement must not follow statistics that are minutes old: all of them
                    # have an index to go by, and a scan of a table that was small once is what hurts.
                    "plan_cache_mode": "force_generic_plan",
                    "enable_seqscan": "off",
                },
            )

            async with self.connection() as connection:
                version = connection.get_server_version().major
                fsync = await connection.fetchval("SELECT current_setting('fsync')")
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as failure:
            raise ConfigError(f"database: it refuses the login: {failure}") from failure
        except asyncpg.InvalidCatalogNameError as failure:
            raise ConfigError(f"database: {failure}") from failure
        except UNAVAILABLE_ERRORS as failure:
            raise Unavailable(f"The database cannot be reached: {failure or type(failure).__name__}") from failure

        if not OLDEST_POSTGRES <= version <= NEWEST_POSTGRES:
            raise ConfigError(
                f"database: it is Postgres {version}; versions {OLDEST_POSTGRES} to {NEWEST_POSTGRES} were expected"
            )
        if fsync != "on":
            raise ConfigError("database: it runs with fsync=off, so a crash would lose acknowledged results")

    async def warm_up(self, step: Callable[[Connection], Awaitable[None]]) -> None:
        """Run `step` once on each connection that is not in use; its statements are not counted.

        Raises:
            Unavailable: as `connection`.
        """
        async with AsyncExitStack() as stack:  # each is kept until the end, so that none comes twice
            for _ in range(self._pool.get_idle_size()):
                connection = await stack.enter_async_context(self.connection())
                with uncounted():
                    await step(connection)

    async def close(self) -> None:
        """Close the connections; those still at work are cut after some seconds."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(5):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection, for single statements.

        Raises:
            Unavailable: the database is away, or a deadline has passed; the outcome may be unknown.
        """
        begun = perf_counter() if self._taken >= self.size else None
        self._taken += 1

        try:
            async with self._pool.acquire(timeout=CONNECT_DEADLINE) as connection:
                if begun is not None:
                    self.load.waited(perf_counter() - begun)
                yield connection
        except UNAVAILABLE_ERRORS as failure:
            raise Unavailable("The database cannot be reached.") from failure
        finally:
            self._taken -= 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction that commits when the block ends well.

        Raises:
            Unavailable: as `connection`.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def flush(self) -> None:
        """Wait until all that was committed before is on disk, whether its transactions waited for that or not.

        Raises:
            Unavailable: as `connection`.
        """
        async with self.connection() as connection:
            await connection.execute(_FLUSH)

    async def listen(self, channel: str, heard: Any) -> Connection:
        """Open a connection of its own that calls `heard(connection, pid, channel, payload)` for each NOTIFY.

        Raises:
            Unavailable: as `connection`.
        """
        try:
            connection = await asyncpg.connect(
                self.dsn,
                connection_class=self._connection_class,
                timeout=CONNECT_DEADLINE,
                command_timeout=STATEMENT_DEADLINE,
            )
            try:
                await connection.add_listener(channel, heard)
            except BaseException:
                connection.terminate()  # a node that ends this early closes it nowhere else
                raise
        except UNAVAILABLE_ERRORS as failure:
            raise Unavailable("The database cannot be reached.") from failure

        return connection


async def _prepare(connection: Connection) -> None:
    # JSON goes in as text that is already encoded, also by COPY, and comes out as objects.
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_jsonb, decoder=_objects, format="binary")


def _jsonb(text: str) -> bytes:
    return b"\x01" + text.encode()


def _objects(binary: bytes) -> Any:
    return msgspec.json.decode(binary[1:])


async def _leave_as_is(connection: Connection) -> None:
    """Spend no statement on resetting a connection's settings, since nothing here changes them."""
