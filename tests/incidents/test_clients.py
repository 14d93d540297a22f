"""Clients that failed, and what they took along with them elsewhere."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from coordinator.client import Backoff, Client
from coordinator.client.daemon import Daemon
from coordinator.client.service_work import ServiceWork
from coordinator.store.pool import Database
from tests.client.scripted import ScriptedServer
from tests.conftest import StartServer
from tests.harness import Admin, Server, Volunteer
from tests.serve.tools import configure, eventually, no_push, reset, results, value

HELD = "SELECT count(*) FROM bucket WHERE client_id = $1"

Item = dict[str, Any]

STRANGERS_WELCOME = {"trusted_proxies": ("127.0.0.1",), "registration": "open"}


async def test_a_surge_to_thirteen_times_as_many(start_server: StartServer, database: Database) -> None:
    """Folding@home grew from 30,000 volunteers to 400,000 within a month, and its servers stopped giving out work.

    https://arstechnica.com/science/2020/04/how-the-pandemic-revived-a-distributed-computing-project-and-made-history/
    """
    await configure(database, bucket_size=2)
    server = await start_server()
    admin = await server.admin()
    regulars = [await server.volunteer(f"regular{n}") for n in range(4)]
    await admin.add(2 * 60)

    surge = asyncio.gather(*(server.volunteer(f"new{n}") for n in range(48)))
    while not surge.done():
        for regular in regulars:
            assert (await regular.submit(await regular.bucket()))["closed"] is True
            await admin.add(2, prefix=f"more{time.monotonic_ns()}_")
    served = await asyncio.gather(*(client.bucket() for client in await surge))
    assert len({bucket["bucket_id"] for bucket in served}) == 48


async def test_a_host_that_never_succeeded_hoards_little(start_server: StartServer, database: Database) -> None:
    """One host held 1,663 tasks, and had never completed any.  https://github.com/BOINC/boinc/issues/3061"""
    await configure(database, bucket_size=1)
    server = await start_server(**STRANGERS_WELCOME)
    admin = await server.admin()
    await admin.add(100)

    elsewhere = {"X-Forwarded-For": "203.0.113.9"}
    sessions = []
    for _ in range(3):
        peer = await server.client(additional_headers=elsewhere)
        if not (await peer.hello("hoarder"))["registered"]:
            services = [{"service": "dm_check", "profile": {"source": "hoarder"}}]
            await peer.ok("register", screen_name="hoarder", services=services)
        sessions.append(peer)
    for peer in sessions:
        await peer.ok("ask", service="dm_check", count=10)
    await eventually(lambda: _holds(database, "hoarder", 2), "it has what a newcomer may have")
    for peer in sessions:
        await peer.ok("ask", service="dm_check", count=0)
    assert await value(database, HELD, "hoarder") == 2


async def _holds(database: Database, client: str, count: int) -> bool:
    return bool(await value(database, HELD, client) == count)


async def test_a_failing_client_is_not_given_one_after_another(start_server: StartServer, database: Database) -> None:
    """A few computers crash large numbers of tasks, for months.  https://github.com/BOINC/boinc/issues/962"""
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, failing = await server.admin(), await server.volunteer("failing")
    await admin.add(100)

    for _ in range(2):
        bucket = await failing.bucket()
        await failing.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])

    begun = time.monotonic()
    await failing.bucket()
    assert time.monotonic() - begun > 0.9, "it waits a second, then two, then four, up to five minutes"


async def test_work_of_a_client_that_hangs_goes_to_others(start_server: StartServer, database: Database) -> None:
    """A download hung for a week, in a client that was connected.

    https://github.com/ArchiveTeam/Ubuntu-Warrior/issues/29
    """
    await configure(database, dead_after=1.0, release_after=1.0)
    server = await start_server()
    admin, hung = await server.admin(), await server.volunteer("hung")
    other = await server.volunteer("other")
    await admin.add(3)
    bucket = await hung.bucket()
    await other.ok("ask", service="dm_check", count=1)
    assert (await hung.push("bucket_dead"))["bucket_id"] == bucket["bucket_id"]
    assert (await hung.push("bucket_lost"))["reason"] == "released"

    taken = await other.push("bucket")
    assert taken["bucket_id"] == bucket["bucket_id"]
    assert (await other.submit(taken))["closed"] is True
    assert (await hung.submit(bucket))["code"] == "stale_claim"


async def test_a_checker_that_hangs_over_one_item_is_not_waited_for_for_ever(
    server: Server, admin: Admin, tmp_path: Path
) -> None:
    """Jobs stopped in the middle, and their clients waited for them, for weeks.

    https://github.com/BOINC/boinc/issues/5352, https://github.com/FoldingAtHome/fah-issues/issues/1121
    """
    ended = asyncio.Event()

    async def check(item: Item, profile: Item) -> Item:
        if item["key"] == "account1":
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return {"dm": "DM"}

    await admin.add(3, services=["dm_check"])
    client = Client(server.url, client_id="ada", data=tmp_path, flush_every=0.05)
    daemon = Daemon(client, [ServiceWork("dm_check", check, {"source": "ada"}, item_timeout=0.2)], concurrency=1)
    working = asyncio.create_task(daemon.run())
    try:
        await eventually(lambda: _settled(server.database, 2), "the others are settled")
        await eventually(lambda: _holds(server.database, "ada", 0), "the one that hangs goes back")
        assert ended.is_set()
    finally:
        daemon.stop()
        await asyncio.wait([working])


async def _settled(database: Database, count: int) -> bool:
    return bool(await results(database) == count)


async def test_two_copies_with_one_client_count_once(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    """Both copies of a task went to one user, and confirmed each other.  https://github.com/BOINC/boinc/issues/4303"""
    await admin.add(2)
    first = await volunteer.bucket()
    twice = first["items"][0]
    await admin.ok("item.prioritize", keys=[twice["key"]], service="dm_check")
    second = await volunteer.bucket()
    assert [item["item"] for item in second["items"]] == [twice["item"]]

    assert (await volunteer.submit(second, "DM"))["stored"] == 1
    later = await volunteer.submit(first, "NON_DM")
    assert (later["stored"], later["discarded"], later["closed"]) == (1, 1, True)
    assert await results(server.database) == 2


async def test_what_breaks_every_client_does_not_come_for_ever(start_server: StartServer, database: Database) -> None:
    """In the end lists hold only what fails, and every client is given that again.

    https://github.com/ArchiveTeam/Ubuntu-Warrior/issues/29
    """
    await configure(database, bucket_size=1)
    server = await start_server(recollect_window=0.1)
    admin = await server.admin()
    clients = [await server.volunteer(f"client{n}") for n in range(3)]
    await admin.add(3, prefix="good")
    for client in clients:
        await client.submit(await client.bucket())
    await server.node.parts.core.counters.flush(database)  # all of them are of standing

    await admin.add(1, prefix="poison")
    for client in clients:
        await client.bucket()
        reset(client)
        ended = "SELECT count(*) FROM session WHERE client_id = $1 AND ended_at IS NULL"
        await eventually(lambda name=client.client_id, ended=ended: _none(database, ended, name), "it is gone")  # type: ignore[misc]

    await eventually(lambda: _quarantined(admin), "it is set aside", 5)
    late = await server.volunteer("late")
    await late.ok("ask", service="dm_check", count=1)
    await admin.add(1, prefix="better")
    assert [item["key"] for item in (await late.push("bucket"))["items"]] == ["better0"]
    await no_push(late)


async def _none(database: Database, statement: str, *values: object) -> bool:
    return not await value(database, statement, *values)


async def _quarantined(admin: Admin) -> bool:
    rows = (await admin.ok("item.quarantined", service="dm_check"))["rows"]
    return [row["key"] for row in rows] == ["poison0"]


async def test_a_404_while_the_server_is_deployed_anew_ends_no_client(tmp_path: Path) -> None:
    """A proxy answers 404 while what is behind it is started; whoever ends for that ends for good.

    https://github.com/openwisp/openwisp-config/issues/160
    """
    async with ScriptedServer() as server:
        client = Client(server.url, client_id="ada", data=tmp_path, backoff=Backoff(0.01, 0.05))
        async with client:
            peer = await server.work()
            await client.welcome()
            server.refusals = [(404, {})] * 5
            await peer.close(1012)
            await server.work(holds=[])
    assert server.handshakes == 7
