"""The database fails in the middle of a request: its finished part stays, and its consequences still happen."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID, uuid4

import asyncpg
import pytest

from coordinator.flow import pool_view
from coordinator.flow.delivery import Delivery
from coordinator.flow.session_registry import Holder
from coordinator.model import Claimed, ClientId, Demand, ServiceId, ServiceSettings, SessionId
from coordinator.store import building, claims, clients
from coordinator.store.clients import KnownClient
from coordinator.store.pool import Connection, Database
from tests.conftest import StartServer
from tests.flow.outage import Outage
from tests.flow.room import stop_clock
from tests.harness import Admin, Server, Volunteer
from tests.serve.tools import configure, eventually, execute, value
from tests.store.bench import interrupt


async def test_what_an_unregistered_client_held_is_freed_though_that_failed_at_first(
    server: Server, admin: Admin, volunteer: Volunteer, database: Database
) -> None:
    await admin.add(3)
    bucket = await volunteer.bucket()
    locker = await asyncpg.connect(database.dsn)
    async with locker.transaction():
        await locker.execute("SELECT FROM bucket FOR UPDATE")
        answer = asyncio.ensure_future(volunteer.refused("unregister"))
        await interrupt(locker)
        assert await answer == "unavailable"
    await locker.close()
    assert (await volunteer.push("bucket_lost"))["bucket_id"] == bucket["bucket_id"]
    other = await server.volunteer("other")
    assert (await other.bucket())["bucket_id"] == bucket["bucket_id"]


async def test_new_items_go_to_who_waits_though_the_known_ones_beside_them_could_not_be_looked_up(
    server: Server, admin: Admin, volunteer: Volunteer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_view, "LOOK_AT_EMPTY_POOL_AFTER", 3600.0)  # only what is heard lets it be looked again
    await stop_clock(server.node)
    await admin.ok("item.add", items=[{"key": "old"}], services=["follower_check"])
    await volunteer.ok("ask", service="dm_check", count=1)
    locker = await asyncpg.connect(database.dsn)
    async with locker.transaction():
        await locker.execute("SELECT FROM item WHERE key = 'old' FOR UPDATE")
        both = [{"key": "old"}, {"key": "new"}]
        answer = asyncio.ensure_future(admin.refused("item.add", items=both, services=["dm_check"]))
        await interrupt(locker)
        assert await answer == "unavailable"
    await locker.close()
    assert [item["key"] for item in (await volunteer.push("bucket"))["items"]] == ["new"]
    assert (await admin.ok("item.add", items=both, services=["dm_check"]))["known"] == 2
    await volunteer.ok("ask", service="dm_check", count=1)
    assert [item["key"] for item in (await volunteer.push("bucket"))["items"]] == ["old"]


async def test_what_no_session_holds_is_freed_after_the_database_was_away(
    server: Server, admin: Admin, volunteer: Volunteer, database: Database
) -> None:
    """The database crashed just after the end of a session, before that was on disk."""
    await stop_clock(server.node)
    await admin.add(3, services=["dm_check"])
    await volunteer.ok("ask", service="dm_check", count=1)
    bucket = await volunteer.push("bucket")
    lost = Demand(ClientId("volunteer"), SessionId(uuid4()), "127.0.0.1")
    await admin.add(3, prefix="more", services=["dm_check"])
    async with database.connection() as db:
        async with db.transaction():
            await building.make(db, ServiceId(1), 10, 180, short=True)
        (claimed,) = (await claims.claim(db, ServiceId(1), [lost], server.node.boot, ServiceSettings())).claimed
    waiting = await server.volunteer("waiting")
    await waiting.ok("ask", service="dm_check", count=1)
    await Outage(database.dsn).strike()
    assert (await waiting.push("bucket"))["bucket_id"] == str(claimed.bucket_id)
    assert (await value(database, "SELECT ended FROM claim WHERE claim_id = $1", claimed.claim)) == "undelivered"
    held = await value(database, "SELECT client_id FROM bucket WHERE bucket_id = $1", UUID(bucket["bucket_id"]))
    assert held == "volunteer", "what a session holds stays with it"


async def test_a_node_lives_on_when_the_end_of_a_session_cannot_be_noted(
    server: Server, admin: Admin, volunteer: Volunteer, database: Database
) -> None:
    await admin.add(3)
    waiting = await server.volunteer("waiting")
    await execute(database, "ALTER TABLE session RENAME COLUMN ended_at TO over_at")
    await volunteer.bucket()
    volunteer.cut()
    await waiting.ok("ask", service="dm_check", count=1)
    assert (await waiting.push("bucket"))["attempt"] == 2

    async def tried() -> bool:
        return "clients.end_sessions" in {
            one.statement for one in server.node.parts.core.database.load.snapshot().statements
        }

    await eventually(tried, "that it has ended was to be noted")
    await execute(database, "ALTER TABLE session RENAME COLUMN over_at TO ended_at")
    waiting.cut()

    async def noted() -> bool:
        return bool(await value(database, "SELECT ended_at FROM session WHERE client_id = 'waiting'"))

    await eventually(noted, "the end of the next session is noted")


async def test_who_asked_is_served_though_the_first_bucket_could_not_be_handed_out(
    start_server: StartServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, volunteer = await server.admin(), await server.volunteer("volunteer")
    take_in, faults = Delivery.take_in, ["a bad bucket"]

    def fail_once(delivery: Delivery, claimed: Claimed, holder: Holder) -> bool:
        if faults:
            raise RuntimeError(faults.pop())
        return take_in(delivery, claimed, holder)

    monkeypatch.setattr(Delivery, "take_in", fail_once)
    await admin.add(2)
    await volunteer.ok("ask", service="dm_check", count=1)
    await volunteer.submit(await volunteer.push("bucket"))
    assert not faults
    assert (await volunteer.ok("ask", service="dm_check", count=1))["pending"] == 1
    await volunteer.push("bucket")  # the first one was freed, for no session holds it


async def test_an_older_reading_of_a_client_does_not_undo_a_newer_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    volunteer = await server.volunteer("volunteer")
    await volunteer.ok("leave", service="dm_check")
    read, has_read, go_on = clients.read, asyncio.Event(), asyncio.Event()

    async def slow(db: Connection, chosen: Collection[ClientId]) -> dict[ClientId, KnownClient]:
        found = await read(db, chosen)
        if not has_read.is_set():
            has_read.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(clients, "read", slow)
    late = asyncio.create_task(server.node.parts.work.memberships.reload(ClientId("volunteer")))
    await has_read.wait()
    await volunteer.ok("join", service="dm_check", profile={"source": "volunteer"})
    go_on.set()
    await late
    assert (await volunteer.ok("ask", service="dm_check", count=1))["count"] == 1
