"""The errors of a database on a bad day: they are waited out, and never end a node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import asyncpg
import structlog

log = structlog.get_logger()

UNAVAILABLE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutdown, start, recovery, statement_timeout, idle_session_timeout
    asyncpg.InvalidAuthorizationSpecificationError,  # a password that was changed, a rule of pg_hba.conf
    asyncpg.InvalidCatalogNameError,  # the database is renamed, or restored
    asyncpg.ObjectNotInPrerequisiteStateError,  # ALLOW_CONNECTIONS false, lock_timeout
    asyncpg.InvalidTransactionStateError,  # read-only, transaction_timeout, idle_in_transaction_session_timeout
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.PostgresSystemError,  # the disk fails
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,  # also a query that recovery on a standby has cancelled
    asyncpg.InvalidSQLStatementNameError,  # these two: a pooler gives statements to server processes in turn
    asyncpg.DuplicatePreparedStatementError,
)
"""Exceptions that are the database's fault; after most of them nobody knows whether the statement was carried out."""

CONTENTION_ERRORS = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
)
"""Failures of one statement, which say nothing of the database."""

STORES_NOTHING_ERRORS = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
)
"""The database answers, and stores nothing."""

SHARED_SESSION_ERRORS = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""A server process that is not always the same one knows no prepared statement, or knows it already."""


def handle_loop_failure(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Handle what the event loop was told, as usual; but of a connection that broke while nobody waited, quietly.

    asyncpg may give up a statement, and the connection with it, and then fails the future of its answer.
    """
    failure, future = context.get("exception"), context.get("future")
    broken = isinstance(failure, asyncpg.PostgresConnectionError | asyncpg.InterfaceError)
    if broken and isinstance(future, asyncio.Future) and not isinstance(future, asyncio.Task):
        log.debug("a connection broke while nobody waited for its answer", reason=str(failure))
    else:
        loop.default_exception_handler(dict(context))
