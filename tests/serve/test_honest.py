"""Clients that only look like those that do harm: none of them waits, holds less or is blamed.

They come from elsewhere, by a proxy, where nobody is trusted before it has worked.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Admin, Server, Volunteer
from tests.serve.tools import configure, eventually, report, value

SCHOOL = "203.0.113.9"


async def server_of_strangers(start_server: StartServer, database: Database, **settings: Any) -> tuple[Server, Admin]:
    await configure(database, **{"bucket_size": 4, **settings})
    server = await start_server(trusted_proxies=("127.0.0.1",), registration="open", viewers="open")
    admin = await server.admin()
    await admin.add(600)
    return server, admin


async def session(server: Server, name: str, address: str = SCHOOL, **hello: Any) -> Volunteer:
    """A session of a client from that address; it registers if it has to."""
    peer = await server.client(additional_headers={"X-Forwarded-For": address})
    if not (await peer.hello(name, **hello))["registered"]:
        choice = [{"service": "dm_check", "profile": {"source": name}}]
        await peer.ok("register", screen_name=name, services=choice)
    return peer


async def is_well(admin: Admin, server: Server, name: str) -> None:
    """It is blamed for nothing, waits for nothing, and is served at once."""
    await server.node.parts.statistics.recorder.write()
    await server.node.parts.work.health_monitor.look()
    row = next(
        one for one in (await admin.ok("client.show", client_id=name))["services"] if one["service"] == "dm_check"
    )
    assert row["health"] == "ok", row
    waits = "SELECT coalesce(wait_until > now(), false) FROM membership WHERE client_id = $1 AND service_id = 1"
    assert await value(server.database, waits, name) is False
    assert not await value(server.database, "SELECT bool_or(wait_until > now()) FROM newcomer_block")


async def test_a_slow_one(start_server: StartServer, database: Database) -> None:
    """It settles one item after the other, and asks for the next bucket before it is through."""
    server, admin = await server_of_strangers(start_server, database, dead_after=5)
    slow = await session(server, "slow")
    bucket = await slow.bucket()
    await slow.ok("ask", service="dm_check", count=1)
    for item in bucket["items"]:
        await asyncio.sleep(0.6)
        await slow.submit(bucket, items=[item["item"]], final=False)
    following = await slow.push("bucket")
    assert (await slow.submit(following))["closed"]
    await is_well(admin, server, "slow")


async def test_one_that_its_api_slows_down(start_server: StartServer, database: Database) -> None:
    """It works on half of a bucket, says that it cannot go on, and brings the rest later."""
    server, admin = await server_of_strangers(start_server, database)
    limited = await session(server, "limited")
    for _ in range(3):
        bucket = await limited.bucket()
        half = [item["item"] for item in bucket["items"][:2]]
        await limited.submit(bucket, items=half, final=False)
        assert (await report(limited, kind="upstream_limited", retry_after=1))["type"] == "reported"
        await asyncio.sleep(1)
        assert (await limited.submit(bucket, items=[item["item"] for item in bucket["items"][2:]]))["closed"]
    await is_well(admin, server, "limited")


async def test_one_on_a_bad_line(start_server: StartServer, database: Database) -> None:
    """Its connection breaks again and again; it comes back with what it holds, works, and never waits."""
    server, admin = await server_of_strangers(start_server, database)
    peer = await session(server, "bad-line")
    bucket = await peer.bucket()
    for turn in range(12):
        peer.cut()
        held = [{"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}]
        peer = await session(server, "bad-line", holds=held)
        bucket = await peer.push("bucket")
        if turn % 3 == 2:
            assert (await peer.submit(bucket))["closed"]
            bucket = await within(peer.bucket(), 0.9)
    await is_well(admin, server, "bad-line")


async def test_one_that_has_just_started(start_server: StartServer, database: Database) -> None:
    """It stumbles twice while it is set up, then works, and soon holds as much as anyone."""
    server, admin = await server_of_strangers(start_server, database)
    new = await session(server, "new")
    for _ in range(2):
        bucket = await new.bucket()
        await new.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    begun = monotonic()
    for _ in range(4):
        assert (await new.submit(await new.bucket()))["closed"]
    assert monotonic() - begun < 3
    await server.node.parts.core.counters.flush(database)
    assert (await new.ok("ask", service="dm_check", count=10))["count"] == 10
    assert (await new.ok("ask", service="dm_check", count=10))["count"] == 10
    for _ in range(20):
        await new.push("bucket", 3.0)
    await is_well(admin, server, "new")


async def test_a_class_that_comes_works_and_goes_together(start_server: StartServer, database: Database) -> None:
    """Thirty pupils behind one address, of whom none has ever worked here; at the bell all lids are closed."""
    server, admin = await server_of_strangers(start_server, database)
    pupils = await asyncio.gather(*(session(server, f"pupil{n}") for n in range(30)))

    async def lesson(pupil: Volunteer) -> None:
        for _ in range(2):
            assert (await pupil.submit(await within(pupil.bucket(), 4)))["closed"]
        await pupil.bucket()

    await asyncio.gather(*map(lesson, pupils))
    for pupil in pupils:
        pupil.cut()

    async def gone() -> bool:
        return bool(await value(database, "SELECT count(*) = 0 FROM bucket WHERE client_id IS NOT NULL"))

    await eventually(gone, "something is held still")
    again = await asyncio.gather(*(session(server, f"pupil{n}", holds=[]) for n in range(30)))
    for pupil in again:
        bucket = await pupil.push("bucket")
        assert (await pupil.submit(bucket))["closed"]
    late = await session(server, "late")
    await within(late.bucket(), 2)
    for name in ("pupil0", "pupil29", "late"):
        await is_well(admin, server, name)
