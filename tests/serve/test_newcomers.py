"""How much a client holds at once: never more than it may, whatever it tries, and newcomers little."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from coordinator.model import ServiceId
from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer, submission
from tests.serve.tools import configure, eventually, join_again, no_push, value

HELD = "SELECT count(*) FROM bucket WHERE client_id = $1"

NEWCOMERS_ON_LOOPBACK = {"bucket_size": 2, "newcomer_buckets": 2}


async def counted(server: Server) -> None:
    """Write down what clients have settled, as is done each second."""
    await server.node.parts.core.counters.flush(server.database)


async def holding(server: Server, client: Volunteer, count: int) -> list[Message]:
    """Ask for more than it may hold; returns the buckets that come, and nothing else does."""
    asked = await client.ok("ask", service="dm_check", count=10)
    assert asked["count"] >= count
    buckets = [await client.push("bucket") for _ in range(count)]
    await no_push(client)
    assert await value(server.database, HELD, client.client_id) == count
    await client.ok("ask", service="dm_check", count=0)
    return buckets


@pytest.mark.parametrize("wait", [True, False])
async def test_the_limit_holds_though_sessions_on_two_nodes_ask_at_once(
    start_server: StartServer, database: Database, wait: bool
) -> None:
    await configure(database, bucket_size=1, max_held_buckets=4)
    nodes = [await start_server(node_name="first"), await start_server(node_name="second")]
    admin = await nodes[0].admin()
    await nodes[0].volunteer("greedy")
    await admin.add(60)
    sessions = [(await join_again(node, "greedy"))[0] for node in nodes for _ in range(6)]
    for _ in range(5):
        await asyncio.gather(
            *(peer.ask_for("ask", service="dm_check", count=10, wait=wait) for peer in sessions for _ in range(2))
        )
        assert await value(database, HELD, "greedy") <= 4
    await asyncio.sleep(1.2)  # all of them are looked at again meanwhile
    assert await value(database, HELD, "greedy") == 4


async def test_each_buckets_worth_that_a_newcomer_settles_doubles_what_it_may_hold(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=2, newcomer_buckets=1, max_held_buckets=5)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(80)
    for may in (1, 2, 4):
        buckets = await holding(server, client, may)
        await client.submit(buckets.pop())
        await counted(server)
        for bucket in buckets:
            await client.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
        async with database.connection() as db:
            await db.execute("UPDATE membership SET wait_until = NULL, streak = 0")
            await db.execute("DELETE FROM return_block")
    await holding(server, client, 5)


async def test_a_newcomer_is_pushed_more_as_soon_as_its_work_is_counted(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1, newcomer_buckets=1)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(30)
    assert (await client.ok("ask", service="dm_check", count=10))["count"] == 10
    await client.submit(await client.push("bucket"))
    for _ in range(2):
        await client.push("bucket", 3.0)
    await no_push(client)


async def test_what_was_taken_back_is_no_standing(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1, newcomer_buckets=1, max_held_buckets=8)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(30)
    for _ in range(3):
        await client.submit(await client.bucket())
    await counted(server)
    taken = await admin.ok("result.invalidate", client_id="client", dry_run=False, requeue=False)
    (bucket,) = await holding(server, client, 1)
    await admin.ok("result.reinstate", invalidation_id=taken["invalidation_id"])
    await client.submit(bucket)
    await holding(server, client, 8)


async def test_newcomers_are_held_short_unless_the_server_is_for_this_machine_alone(
    start_server: StartServer, database: Database
) -> None:
    here = await start_server(node_name="here")
    behind = await start_server(node_name="behind", trusted_proxies=("127.0.0.1",), registration="open")
    for server, expected in ((here, 20), (behind, 2)):
        client = await server.volunteer(f"client{expected}")
        services = (await client.ok("services"))["services"]
        assert {one["settings"]["newcomer_buckets"] for one in services} == {expected}
    admin = await here.admin()
    assert (await admin.ok("service.show", service="dm_check"))["settings"]["newcomer_buckets"] == 20


# Newcomers of one address


async def from_elsewhere(start_server: StartServer, database: Database, **settings: Any) -> tuple[Server, Admin]:
    """A server that is told by a proxy where its peers come from."""
    await configure(database, **{**NEWCOMERS_ON_LOOPBACK, **settings})
    server = await start_server(trusted_proxies=("127.0.0.1",), registration="open", viewers="open")
    return server, await server.admin()


async def stranger(server: Server, name: str, address: str) -> Volunteer:
    client = await server.client(additional_headers={"X-Forwarded-For": address})
    await client.hello(name)
    choice = [{"service": "dm_check", "profile": {"source": name}}]
    await client.ok("register", screen_name=name, services=choice)
    return client


async def test_newcomers_of_one_address_pay_together_for_what_they_give_back(
    start_server: StartServer, database: Database
) -> None:
    server, admin = await from_elsewhere(start_server, database)
    await admin.add(200)
    for n in range(23):  # each with an identity of its own, for which the first time costs nothing
        client = await stranger(server, f"throwaway{n}", "203.0.113.9")
        bucket = await client.bucket()
        await client.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    fresh = await stranger(server, "fresh", "203.0.113.9")
    assert await fresh.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    other = await stranger(server, "other", "203.0.113.10")
    await other.submit(await other.bucket())
    waits = await value(
        database, "SELECT extract(epoch FROM wait_until - last_at)::int FROM newcomer_block WHERE streak = 23"
    )
    assert waits == 4  # a second after the 21st, doubling


async def test_a_class_behind_one_address_is_served_though_some_of_it_leave(
    start_server: StartServer, database: Database
) -> None:
    server, admin = await from_elsewhere(start_server, database)
    await admin.add(300)
    pupils = [await stranger(server, f"pupil{n}", "203.0.113.9") for n in range(30)]
    buckets = await asyncio.gather(*(pupil.bucket() for pupil in pupils))
    for pupil in pupils[:8]:
        pupil.cut()

    async def gone() -> bool:
        return bool(await value(database, "SELECT count(*) = 8 FROM claim WHERE ended = 'cut_off'"))

    await eventually(gone, "not all have left")
    for pupil, bucket in zip(pupils[8:], buckets[8:], strict=True):
        assert (await pupil.ask_for("submit", **submission(bucket)))["closed"]
        assert (await within(pupil.bucket(), 3))["items"]


async def test_newcomers_of_one_address_hold_no_more_than_a_class_needs(
    start_server: StartServer, database: Database
) -> None:
    server, admin = await from_elsewhere(start_server, database, bucket_size=1)
    await admin.add(200)
    crowd = [await stranger(server, f"crowd{n}", "203.0.113.9") for n in range(40)]
    await asyncio.gather(*(peer.ok("ask", service="dm_check", count=2) for peer in crowd))

    async def held() -> bool:
        return bool(await value(database, "SELECT count(*) >= 64 FROM bucket WHERE client_id IS NOT NULL"))

    await eventually(held, "they hold what they may")
    await asyncio.sleep(1.2)  # all of them are looked at again meanwhile
    assert await value(database, "SELECT count(*) FROM bucket WHERE client_id IS NOT NULL") == 64
    other = await stranger(server, "other", "203.0.113.10")
    await other.bucket()


async def test_newcomers_that_wait_are_not_looked_at_whenever_something_comes(
    start_server: StartServer, database: Database
) -> None:
    """Else a crowd that holds what it may would be asked for at each bucket that comes back, before all others."""
    await configure(database, bucket_size=1, newcomer_buckets=1)
    server = await start_server(registrations_per_minute=6000)
    admin = await server.admin()
    crowd = await asyncio.gather(*(server.volunteer(f"crowd{n}") for n in range(60)))
    worker = await server.volunteer("worker")
    await admin.add(60 + 100)
    await asyncio.gather(*(peer.ok("ask", service="dm_check", count=3) for peer in crowd))
    for peer in crowd:
        await peer.push("bucket")

    load = server.node.parts.core.database.load
    before = {one.statement: one.calls for one in load.snapshot().statements}
    begun = monotonic()
    for _ in range(40):  # each comes back, and others hear of it
        bucket = await worker.bucket()
        await worker.ok("submit", **submission(bucket))
        server.node.parts.work.grant.wake(ServiceId(1))
    seconds = monotonic() - begun
    after = {one.statement: one.calls for one in load.snapshot().statements}
    looked = after["waits.find_waits"] - before.get("waits.find_waits", 0)
    assert looked <= 4 * (seconds + 1)
    await no_push(crowd[0])
