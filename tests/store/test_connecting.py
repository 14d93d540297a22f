"""Connections are made ready, last for a limited time, and lead to the host that can be written to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from coordinator.errors import Unavailable
from coordinator.store import connecting
from coordinator.store.faults import handle_loop_failure
from coordinator.store.pool import Database
from tests.chaos.proxy import Proxy

_BEGUN = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE 'BEGIN%'"


def _socket_of(dsn: str) -> Path:
    """Return the socket of the server that a test's DSN leads to."""
    query = parse_qs(urlsplit(dsn).query)
    return Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"


async def test_guards_on_plans_hold_on_every_connection(database: Database) -> None:
    async with database.connection() as one, database.connection() as other, database.connection() as third:
        for connection in (one, other, third):
            assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
            assert await connection.fetchval("SHOW enable_seqscan") == "off"
            assert connection.retire_at < float("inf")


async def test_a_connection_is_replaced_after_some_time(database: Database) -> None:
    async with database.connection() as db:
        before = await db.fetchval("SELECT pg_backend_pid()")
    async with database.connection() as db:
        assert await db.fetchval("SELECT pg_backend_pid()") == before
        db._con.retire_at = 0.0

    async with database.connection() as one, database.connection() as other:
        assert before not in [await db.fetchval("SELECT pg_backend_pid()") for db in (one, other)]


async def test_a_connection_may_be_cut_while_it_is_lent(database: Database) -> None:
    async with database.connection() as db:
        assert await db.fetchval("SELECT 1") == 1
        database.terminate()  # as a node does that ends
    with pytest.raises(Unavailable):
        async with database.connection():
            raise AssertionError("there is none any more")


async def test_a_transaction_that_is_cancelled_while_it_begins_leaves_nothing_behind(
    database: Database, dsn: str
) -> None:
    """The pool found it open when it had its connection back, and the event loop logged an error."""
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    async with Proxy(lambda: _socket_of(dsn)) as way:
        slow = Database(f"postgresql://postgres@127.0.0.1:{way.port}{urlsplit(dsn).path}?sslmode=disable")
        await slow.open()

        async def begin() -> None:
            async with slow.transaction():
                raise AssertionError("it has begun")

        way.stall("down")
        task = asyncio.create_task(begin())
        async with database.connection() as db:
            while not await db.fetchval(_BEGUN):
                pass
        task.cancel()
        await asyncio.wait([task])
        way.heal()
        assert task.cancelled()

        async with slow.transaction() as db:
            assert await db.fetchval("SELECT 1") == 1
        await slow.close()
    assert not logged, logged


async def test_a_pool_that_cannot_be_opened_leaves_no_connection_behind(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaced them while the program ended, and the event loop logged a failure that nobody had waited for."""

    async def break_off(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(connecting, "check_sessions", break_off)
    database = Database(dsn)
    with pytest.raises(Unavailable):
        await database.open()
    assert database._pool.get_size() == 0
    assert database._pool.is_closing()


async def test_a_node_that_vanishes_within_a_transaction_holds_its_locks_not_for_long(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells Postgres that the other end is gone: no reset, no end of the stream."""
    monkeypatch.setattr(connecting, "ABANDONED_AFTER", 0.5)
    async with Proxy(lambda: _socket_of(dsn)) as way:
        vanishing = Database(f"postgresql://postgres@127.0.0.1:{way.port}{urlsplit(dsn).path}?sslmode=disable")
        await vanishing.open()
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def lock_and_vanish() -> None:
            async with vanishing.transaction() as db:
                await db.execute("SELECT pg_advisory_xact_lock(1)")
                begun.set_result(None)
                way.swallow("up", "down")
                await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(lock_and_vanish())
        await begun
        async with asyncio.timeout(5), database.connection() as db:
            await db.execute("SELECT pg_advisory_xact_lock(1)")

        vanishing.terminate()
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize(
    ("dsn", "several"),
    [
        ("postgresql://node@one.example:5432/coordinator", False),
        ("postgresql://node:a,b@one.example/coordinator", False),
        ("postgresql://node@one.example:5432,two.example:5432/coordinator", True),
        ("postgresql:///coordinator?host=one.example,two.example&user=node", True),
        ("postgresql:///coordinator?host=/run/postgresql&options=a,b", False),
    ],
)
def test_several_hosts_are_recognised(dsn: str, several: bool) -> None:
    assert connecting.names_several_hosts(dsn) is several


async def test_an_answer_that_nobody_waits_for_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """It was logged as one by the event loop, now and then when a connection broke while its statement was given up."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handle_loop_failure)
    for failure in (asyncpg.ConnectionDoesNotExistError("closed"), asyncpg.InterfaceError("closed")):
        loop.create_future().set_exception(failure)
    assert not caplog.records
    loop.create_future().set_exception(ValueError("a fault of ours"))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
