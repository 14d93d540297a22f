"""A node that stands still, or cannot be reached, in the middle of something in the database; what it has locked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from coordinator.errors import Unavailable
from coordinator.model import ClientId, Demand, ServiceId, ServiceSettings, SessionId
from coordinator.store import claims, nodes, pool
from coordinator.store.pool import Connection, Database
from tests.chaos.proxy import Proxy
from tests.conftest import StartServer
from tests.serve.tools import configure, eventually, value

LEASE = 2.0

_IN_COPY = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event = 'ClientRead' AND state = 'active' AND query LIKE 'COPY%'"""


async def endless() -> AsyncIterator[bytes]:
    """The beginning of a COPY whose rest never comes."""
    yield b"PGCOPY\n\xff\r\n\x00" + bytes(8)
    await asyncio.Event().wait()


@asynccontextmanager
async def copying(db: Connection, database: Database) -> AsyncIterator[asyncio.Task[str]]:
    """Lock all buckets, and stand still in the middle of a COPY."""
    await db.execute("SELECT FROM bucket FOR UPDATE")
    task = asyncio.create_task(db.copy_to_table("result", source=endless(), format="binary"))

    async def waits() -> bool:
        return bool(await value(database, _IN_COPY))

    await eventually(waits, "the server waits for more of it")
    yield task


async def test_what_it_locked_in_the_middle_of_a_copy_is_free_with_its_lease(
    start_server: StartServer, database: Database, dsn: str
) -> None:
    """No timeout of Postgres ends a COPY that waits for its client."""
    await configure(database, bucket_size=2)
    server = await start_server(node_lease=LEASE)
    admin, waiting = await server.admin(), await server.volunteer("waiting")
    await server.volunteer("ada")
    await admin.add(2, services=["dm_check"])

    async def built() -> bool:
        return bool(await value(database, "SELECT count(*) FROM bucket WHERE state = 'ready'"))

    await eventually(built, "the bucket is made")
    frozen = Database(dsn, size=2)
    await frozen.open()
    async with frozen.connection() as db:
        boot = await nodes.begin(db, "frozen", "1", LEASE)
    await frozen.belong_to(boot)
    demand = Demand(ClientId("ada"), SessionId(uuid4()), "127.0.0.1")
    async with frozen.connection() as db:
        (held,) = (await claims.claim(db, ServiceId(1), [demand], boot, ServiceSettings())).claimed
    begun = monotonic()

    async def lock_and_freeze() -> None:
        async with frozen.transaction() as db, copying(db, database) as copy:
            standing.set_result(None)
            await copy

    standing = asyncio.get_running_loop().create_future()
    freezing = asyncio.create_task(lock_and_freeze())
    await standing
    await waiting.ok("ask", service="dm_check", count=1)
    assert (await waiting.push("bucket"))["bucket_id"] == str(held.bucket_id)
    assert monotonic() - begun < LEASE + 2
    await end(freezing)
    await frozen.close()


async def test_a_connection_that_was_given_up_holds_its_locks_not_for_long(
    start_server: StartServer, database: Database
) -> None:
    """The network lost it, so that the server waits for more of a COPY, and hears nothing of its end."""
    server = await start_server(node_lease=LEASE)

    given_up: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def lose_the_way() -> None:
        async with database.connection() as db:
            await db.execute("SELECT set_config('application_name', $1, false)", f"coordinator {server.node.boot}")
            async with copying(db, database) as copy:
                given_up.set_result(await value(database, _IN_COPY.replace("count(*)", "pid")))
                await copy

    async def ended() -> bool:
        return not await value(database, _IN_COPY)

    losing = asyncio.create_task(lose_the_way())
    server.node.parts.core.database.given_up.add(await given_up)
    await eventually(ended, "its process has ended", LEASE + 2)
    await end(losing)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel what stands still."""
    task.cancel()
    with pytest.raises((asyncio.CancelledError, Unavailable)):
        await task


async def test_a_statement_without_an_answer_is_given_up(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a transaction, too, whose rollback fails in another way."""
    monkeypatch.setattr(pool, "STATEMENT_DEADLINE", 0.5)
    query = parse_qs(urlsplit(dsn).query)
    where = Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
    async with Proxy(lambda: where) as way:
        database = Database(f"postgresql://postgres@127.0.0.1:{way.port}{urlsplit(dsn).path}?sslmode=disable", size=2)
        await database.open()
        pids = list[int]()

        async def lose_the_way() -> None:
            async with database.transaction() as db:
                pids.append(await db.fetchval("SELECT pg_backend_pid()"))
                way.swallow("up", "down")
                await db.copy_to_table("result", source=endless(), format="binary")

        with pytest.raises(Unavailable):
            await lose_the_way()
        assert database.given_up == set(pids)
        await database.close()
