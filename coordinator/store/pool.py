"""Connections to Postgres, and the line between its faults and ours.

Every statement has a deadline.  An error that means "the database cannot be reached or did not answer" leaves here
as `Unavailable`; anything else that asyncpg raises is a fault of this program and is let through.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from time import monotonic, perf_counter
from typing import Any, TypeAlias
from weakref import WeakSet

import asyncpg

from coordinator.errors import ConfigError, Unavailable
from coordinator.model import Boot
from coordinator.store import connecting
from coordinator.store.faults import (
    CONTENTION_ERRORS,
    SHARED_SESSION_ERRORS,
    STORES_NOTHING_ERRORS,
    UNAVAILABLE_ERRORS,
)
from coordinator.store.statement_stats import StatementStats, counted_by, uncounted

Connection: TypeAlias = Any
"""An asyncpg connection (which has no types of its own)."""

STATEMENT_DEADLINE = 10.0
"""Seconds that one statement may take."""

CONNECT_DEADLINE = 5.0

STORES_NOTHING_FOR = 10.0
"""Seconds after a statement that could not be stored, within which the database is held to store nothing.

The lease is renewed more often than that, so it does not pass unnoticed that it stores nothing still.
"""

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
        # Of several hosts the one is wanted that can be written to, unless the DSN says otherwise.
        picky = connecting.names_several_hosts(dsn) and "target_session_attrs" not in dsn
        self._target = {"target_session_attrs": "read-write"} if picky else {}
        self._listening: WeakSet[Connection] = WeakSet()
        self.size = size
        self._taken = 0
        self._pool: Any = None

        self._name = connecting.session_name(None)
        self.given_up: set[int] = set()
        """Server processes whose connection was given up since they did not answer in time; they may hold locks."""
        self._out_of_reach: str | None = None
        self._stored_nothing: tuple[float, str] | None = None
        self.failed_at = 0.0
        """When a statement last showed that the database was away or stored nothing; seconds of the monotonic clock."""

    async def open(self) -> None:
        """Connect.

        Raises:
            Unavailable: it cannot be reached.
            ConfigError: it is no Postgres that this program runs on.
        """
        try:
            version, fsync = await self._connect()
            if not OLDEST_POSTGRES <= version <= NEWEST_POSTGRES:
                expected = f"versions {OLDEST_POSTGRES} to {NEWEST_POSTGRES} were expected"
                raise ConfigError(f"database: it is Postgres {version}; {expected}")
            if fsync != "on":
                raise ConfigError("database: it runs with fsync=off, so a crash would lose acknowledged results")
        except BaseException:
            # Else the pool goes on to replace its connections, also while the program ends: nobody awaits that.
            self.terminate()
            raise

    async def _connect(self) -> tuple[int, str]:
        """Make the pool; returns the version of the server, and whether it syncs."""
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
                init=self._prepare,
                reset=_leave_as_is,
                **self._target,
            )

            async with self.connection() as connection:
                version = connection.get_server_version().major
                fsync = await connection.fetchval("SELECT current_setting('fsync')")
                async with self.connection() as other:
                    await connecting.check_sessions(connection, other)
        except SHARED_SESSION_ERRORS as failure:
            raise ConfigError(connecting.SHARES_SESSIONS) from failure
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as failure:
            raise ConfigError(f"database: it refuses the login: {failure}") from failure
        except asyncpg.InvalidCatalogNameError as failure:
            raise ConfigError(f"database: {failure}") from failure
        except UNAVAILABLE_ERRORS as failure:
            raise Unavailable(f"The database cannot be reached: {failure or type(failure).__name__}") from failure
        return version, fsync

    async def _prepare(self, connection: Connection) -> None:
        await connecting.prepare(connection, self._name)

    async def belong_to(self, boot: Boot) -> None:
        """Let all connections bear the name of a start of a node, by which other nodes can end them."""
        self._name = connecting.session_name(boot)
        await self._pool.expire_connections()

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

    def terminate(self) -> None:
        """Cut all connections, whatever they do; whoever waits for one of them meets `Unavailable`."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection, for single statements.

        Raises:
            Unavailable: the database is away, or a deadline has passed; the outcome may be unknown.
        """
        begun = perf_counter() if self._taken >= self.size else None
        self._taken += 1
        lent: Connection = None

        try:
            async with self._pool.acquire(timeout=CONNECT_DEADLINE) as connection:
                lent = connection._con  # which the pool takes away when it is cut
                if begun is not None:
                    self.load.waited(perf_counter() - begun)
                yield connection
                if monotonic() >= lent.retire_at:
                    await connection.close()
            self._out_of_reach = None
        except AttributeError as failure:
            if lent is None or not lent.is_closed():
                raise
            # A connection that is cut while it prepares a statement has forgotten its protocol then.
            _refuse_to_hide_a_cancellation(failure)
            self._remember(failure)
            raise Unavailable("The database cannot be reached.") from failure
        except UNAVAILABLE_ERRORS as failure:
            _refuse_to_hide_a_cancellation(failure)
            self._remember(failure)
            # A server that has become a standby stays one; where one connection is dropped silently, others may be.
            late = lent is not None and _was_late(failure)
            if late:
                self.given_up.add(lent.server_process)
            if late or isinstance(failure, asyncpg.ReadOnlySQLTransactionError):
                await self._throw_away()
            raise Unavailable("The database cannot be reached.") from failure
        finally:
            self._taken -= 1

    async def _throw_away(self) -> None:
        """Connect anew, each connection before it is used again."""
        await self._pool.expire_connections()
        for connection in list(self._listening):
            connection.terminate()

    def _remember(self, failure: BaseException) -> None:
        reason = (str(failure) or type(failure).__name__).splitlines()[0]
        if not isinstance(failure, CONTENTION_ERRORS):
            self.failed_at = monotonic()
        if isinstance(failure, STORES_NOTHING_ERRORS):
            self._stored_nothing = monotonic(), reason
        elif not isinstance(failure, CONTENTION_ERRORS):
            self._out_of_reach = reason

    @property
    def trouble(self) -> str | None:
        """A sentence on what is wrong with the database, as far as statements have shown lately; None if nothing is."""
        if self._out_of_reach is not None:
            return f"The database cannot be reached: {self._out_of_reach}."
        if self._stored_nothing is not None and monotonic() - self._stored_nothing[0] < STORES_NOTHING_FOR:
            return f"The database stores nothing: {self._stored_nothing[1]}."
        return None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction that commits when the block ends well.

        Raises:
            Unavailable: as `connection`; also if the server warns at the commit, as it does if it waited for a standby
                in vain: what was committed may be lost with this server.
        """
        async with self.connection() as connection:
            transaction = connection.transaction()
            try:
                await transaction.start()
            except BaseException:
                connection.terminate()  # it may have begun: nobody could end it
                raise
            try:
                yield connection
            except BaseException:
                try:
                    await transaction.rollback()
                except BaseException:
                    connection.terminate()
                    raise
                raise

            with _warnings_of(connection) as warnings:
                await transaction.commit()
            if warnings:
                raise Unavailable(f"It is not known whether the commit will last: {warnings[0].message}")

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
                **self._target,
            )
            connecting.keep_alive(connection)
            self._listening.add(connection)
            try:
                await connection.add_listener(channel, heard)
            except BaseException:
                connection.terminate()  # a node that ends this early closes it nowhere else
                raise
        except UNAVAILABLE_ERRORS as failure:
            raise Unavailable("The database cannot be reached.") from failure

        return connection


@contextmanager
def _warnings_of(connection: Connection) -> Iterator[list[Any]]:
    """Collect the warnings of the server."""
    found: list[Any] = []

    def heard(_: Connection, message: Any) -> None:
        if isinstance(message, asyncpg.PostgresWarning):
            found.append(message)

    connection.add_log_listener(heard)
    try:
        yield found
    finally:
        connection.remove_log_listener(heard)


def _was_late(failure: BaseException | None) -> bool:
    """Whether a deadline has passed; the rollback behind it may have failed otherwise."""
    while failure is not None and not isinstance(failure, TimeoutError):
        failure = failure.__context__
    return failure is not None


def _refuse_to_hide_a_cancellation(failure: BaseException) -> None:
    """Check that the task that meets this failure is not to end.

    One that is cancelled while its connection breaks, or cannot be rolled back, meets the failure of that instead.

    Raises:
        asyncio.CancelledError: it is.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from failure


async def _leave_as_is(connection: Connection) -> None:
    """Spend no statement on resetting a connection's settings, since nothing here changes them."""
