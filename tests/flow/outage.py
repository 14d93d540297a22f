"""The database goes away at a chosen moment: its connections end, as when it restarts or the network fails.

Or it is slow: commits are not answered for a while, or it stands still.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import asyncpg

from coordinator.embedded import EmbeddedPostgres
from coordinator.errors import Unavailable
from coordinator.model import BucketId
from tests.store.bench import PATIENCE

T = TypeVar("T")

Moment = Literal["before", "locked", "committed"]
"""Before a transaction, while it waits for a bucket's row, or between its commit and the answer."""

_OTHERS = """
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""

_WAITING_FOR_A_ROW = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"""

# A commit that waits for a standby is done here, but not answered.
_WAITING_FOR_A_STANDBY = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep')"""

_WAITS_FOR_A_STANDBY = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')"

_WAIT_NO_LONGER = f"SELECT pg_cancel_backend(pid) {_OTHERS} AND wait_event = 'SyncRep'"


@contextmanager
def standing_still(postgres: EmbeddedPostgres) -> Iterator[None]:
    """Stop all processes of a server; they go on at the end."""
    postmaster = int((postgres.root / "data" / "postmaster.pid").read_text().split("\n", maxsplit=1)[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    stopped = [postmaster, *map(int, children)]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):  # it was about to end, and the postmaster goes on first
                os.kill(pid, signal.SIGCONT)


class Outage:
    """Ends all connections to one database but its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def strike(self) -> None:
        """End them; returns when they have ended."""
        async with self._connection() as db:
            await _end(db)

    async def during(self, step: Awaitable[T], bucket: BucketId, moment: Moment) -> T | None:
        """Answer of a step whose connection ends at that moment; None if it tells that the database is away.

        A step that never comes to that moment ends as it would.
        """
        async with self._connection() as db:
            if moment == "before":
                await _end(db)
                return await _answer(step)
            if moment == "locked":
                async with db.transaction():
                    await db.execute("SELECT FROM bucket WHERE bucket_id = $1 FOR UPDATE", bucket)
                    return await self._end_when(db, _WAITING_FOR_A_ROW, step)
            async with self._standby_missing(db):
                return await self._end_when(db, _WAITING_FOR_A_STANDBY, step)

    @asynccontextmanager
    async def commits_unanswered(self) -> AsyncIterator[None]:
        """Transactions that wait for the disk are committed, but not answered before this ends; the others are."""
        async with self._connection() as db, self._standby_missing(db):
            yield

    async def give_up_commit(self, step: Awaitable[T]) -> T | None:
        """Answer of a step whose commit is told to wait no longer for a standby; None: the database is away."""
        async with self._connection() as db, self._standby_missing(db):
            answer = asyncio.ensure_future(_answer(step))
            async with asyncio.timeout(PATIENCE):
                while not answer.done():
                    await db.execute(_WAIT_NO_LONGER)
                return await answer

    @asynccontextmanager
    async def _standby_missing(self, db: Any) -> AsyncIterator[None]:
        """All commits from now on wait for a standby, but those of this connection."""
        await db.execute("SET synchronous_commit = 'off'")
        await self._standby(db, "nobody")
        try:
            await self._until_commits_wait(db)
            yield
        finally:
            await self._standby(db, "")

    async def _until_commits_wait(self, db: Any) -> None:
        """All of Postgres has heard of the standby once a commit of another connection waits."""
        async with self._connection() as probe, asyncio.timeout(PATIENCE):
            writing = asyncio.ensure_future(_write(probe))
            while not await _look(db, _WAITS_FOR_A_STANDBY, probe.get_server_pid()):
                if writing.done():
                    writing = asyncio.ensure_future(_write(probe))
            await db.execute("SELECT pg_cancel_backend($1)", probe.get_server_pid())  # its wait, not its commit
            await writing

    async def _end_when(self, db: Any, waits: str, step: Awaitable[T]) -> T | None:
        answer = asyncio.ensure_future(_answer(step))
        async with asyncio.timeout(PATIENCE):
            while not answer.done() and not await _look(db, waits):
                pass
            await _end(db)
            return await answer

    async def _standby(self, db: Any, name: str) -> None:
        await db.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await db.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(PATIENCE):
            while await db.fetchval("SELECT current_setting('synchronous_standby_names')") != name:
                pass

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self._dsn)
        try:
            yield connection
        finally:
            await connection.close()


async def _write(db: Any) -> None:
    await db.execute("SELECT pg_logical_emit_message(true, 'outage', '')")


async def _end(db: Any) -> None:
    found = [row["pid"] for row in await db.fetch("SELECT pid, pg_terminate_backend(pid)" + _OTHERS)]
    async with asyncio.timeout(PATIENCE):
        for pid in found:
            while _runs(pid):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
    await asyncio.sleep(0)  # the loop has looked at the sockets once more, and knows which are closed
    await asyncio.sleep(0)


def _runs(pid: int) -> bool:
    """Whether there is such a process on this machine; its sockets are closed when there is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _look(db: Any, statement: str, *values: object) -> Any:
    await db.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees the same activity for ever
    return await db.fetchval(statement, *values)


async def _answer(step: Awaitable[T]) -> T | None:
    try:
        return await step
    except Unavailable:
        return None
