"""A client that only reads reads little: by no way back does it come to a chosen item, nor to many keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest

from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Message, Server, Volunteer, submission
from tests.serve.tools import configure, eventually, execute, join_again, value
from tests.store.bench import blocked

PROFILE = {"source": "hunter"}


async def release(server: Server, peer: Volunteer, buckets: list[Message]) -> Volunteer:
    for bucket in buckets:
        await peer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    return peer


async def disconnect(server: Server, peer: Volunteer, buckets: list[Message]) -> Volunteer:
    peer.cut()
    again, _ = await join_again(server, peer.client_id)
    return again


async def leave(server: Server, peer: Volunteer, buckets: list[Message]) -> Volunteer:
    await peer.ok("leave", service="dm_check")
    await peer.ok("join", service="dm_check", profile=PROFILE)
    return await silent(peer)


async def unregister(server: Server, peer: Volunteer, buckets: list[Message]) -> Volunteer:
    await peer.ok("unregister")
    await peer.ok("register", screen_name=peer.client_id, services=[{"service": "dm_check", "profile": PROFILE}])
    return await silent(peer)


async def final_with_leftovers(server: Server, peer: Volunteer, buckets: list[Message]) -> Volunteer:
    for bucket in buckets:
        stored = await peer.ok("submit", **submission(bucket, items=[bucket["items"][0]["item"]]))
        assert stored["closed"]
    return peer


async def part_and_release(server: Server, peer: Volunteer, buckets: list[Message]) -> Volunteer:
    """It settles one item of each bucket, so that it has not returned all."""
    for bucket in buckets:
        await peer.ok("submit", **submission(bucket, items=[bucket["items"][0]["item"]], final=False))
    return await release(server, peer, buckets)


async def silent(peer: Volunteer) -> Volunteer:
    """The pushes for what it lost are read."""
    await peer.ok("services")
    while not peer.pushes.empty():
        assert peer.pushes.get_nowait()["type"] == "bucket_lost"
    return peer


Way = Callable[[Server, Volunteer, list[Message]], Awaitable[Volunteer]]

WAYS: list[Way] = [release, disconnect, leave, unregister, final_with_leftovers, part_and_release]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_an_identity_reads_little_without_settling_by_whatever_way_it_gives_back(
    start_server: StartServer, database: Database, way: Way
) -> None:
    await configure(database, bucket_size=10, max_held_buckets=4, newcomer_buckets=4)
    server = await start_server()
    admin = await server.admin()
    await admin.add(900)
    hunter = await server.volunteer("hunter")
    read: set[str] = set()
    asked = 0

    begun = monotonic()
    while monotonic() < begun + 4:
        await hunter.ok("ask", service="dm_check", count=0)
        await hunter.ok("ask", service="dm_check", count=10)
        asked += 1
        buckets: list[Message] = []
        try:
            while len(buckets) < 4:
                buckets.append(await hunter.push("bucket", 0.2))
        except TimeoutError:
            if not buckets:
                continue
        read |= {bucket["bucket_id"] for bucket in buckets}
        hunter = await way(server, hunter, buckets)
    assert asked >= 8
    # 4 at the start and after the first time, then fewer and fewer, a second, two and four apart.
    assert 1 <= len(read) <= 4 + 4 + 4 + 2
    streak = await value(database, "SELECT streak FROM membership WHERE client_id = 'hunter'")
    assert streak >= 2


async def test_who_leaves_and_joins_comes_to_no_chosen_item(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin = await server.admin()
    await admin.add(30)
    hunter = await server.volunteer("hunter")

    begun, tried = monotonic(), 0
    while monotonic() < begun + 2.5:
        await hunter.ok("ask", service="dm_check", count=1)
        try:
            bucket = await hunter.push("bucket", 0.1)
        except TimeoutError:
            bucket = None
        tried += bucket is not None
        await hunter.ok("leave", service="dm_check")
        await hunter.ok("join", service="dm_check", profile=PROFILE)
        while not hunter.pushes.empty():
            tried += hunter.pushes.get_nowait()["type"] == "bucket"  # one that came as it left
    assert tried <= 4  # at once, at once, after 1 s, after 2 s more


async def test_one_final_result_a_bucket_cuts_up_nothing(start_server: StartServer, database: Database) -> None:
    """One identity and its throw-away friends cannot set a service's buckets aside."""
    await configure(database, bucket_size=5)
    server = await start_server(recollect_window=0)
    admin = await server.admin()
    await admin.add(50)
    liar = await server.volunteer("liar")
    for _ in range(6):
        await execute(database, "UPDATE membership SET wait_until = NULL, streak = 0")
        await execute(database, "DELETE FROM return_block")
        bucket = await liar.bucket()
        await liar.ok("submit", **submission(bucket, items=[bucket["items"][0]["item"]]))
    for n in range(6):
        friend = await server.volunteer(f"friend{n}")
        await friend.bucket()
        friend.cut()

    async def all_back() -> bool:
        return bool(await value(database, "SELECT count(*) = 6 FROM claim WHERE ended = 'cut_off'"))

    await eventually(all_back, "some are held")
    assert await value(database, "SELECT count(*) FROM bucket WHERE split_at IS NOT NULL") == 0
    assert await value(database, "SELECT count(*) FROM bucket WHERE state = 'ready'") == 10
    honest = await server.volunteer("honest")
    for _ in range(10):
        assert (await honest.submit(await within(honest.bucket(), 3)))["closed"]


async def test_what_was_cut_off_and_taken_again_does_not_pile_up(start_server: StartServer, database: Database) -> None:
    """Regranted buckets do not count against the limit, but taking others in between costs each time."""
    await configure(database, bucket_size=1, max_held_buckets=3)
    server = await start_server()
    admin = await server.admin()
    await admin.add(200)
    peer = await server.volunteer("hunter")
    held: set[str] = set()

    begun = monotonic()
    while monotonic() < begun + 4:
        await peer.ok("ask", service="dm_check", count=10)
        await peer.ok("recollect", holds=[])
        try:
            while True:
                held.add((await peer.push("bucket", 0.1))["bucket_id"])
        except TimeoutError:
            pass
        peer.cut()
        peer, _ = await join_again(server, "hunter")
    assert len(held) <= 3 + 3 + 3 + 2


async def test_a_crowd_that_gave_buckets_back_holds_nobody_up(start_server: StartServer, database: Database) -> None:
    """Each of it would have to be claimed for singly, if what is ready were only what it gave back."""
    await configure(database, bucket_size=1)
    server = await start_server(registrations_per_minute=6000)
    admin = await server.admin()
    crowd = await asyncio.gather(*(server.volunteer(f"crowd{n}") for n in range(100)))
    worker = await server.volunteer("worker")
    await execute(
        database,
        "INSERT INTO return_block (client_id, bucket_id, times, until)"
        " SELECT client_id, gen_random_uuid(), 1, now() + interval '1 hour' FROM client WHERE client_id <> 'worker'",
    )
    await asyncio.gather(*(peer.ok("ask", service="dm_check", count=1) for peer in crowd))
    await asyncio.sleep(0.2)

    load = server.node.parts.core.database.load
    before = {one.statement: one.calls for one in load.snapshot().statements}
    await admin.add(5, prefix="few")  # each of the crowd has its turn before the worker
    assert (await worker.ok("ask", service="dm_check", count=1))["pending"] == 1

    async def handed_out() -> bool:
        return bool(await value(database, "SELECT count(*) = 5 FROM bucket WHERE client_id IS NOT NULL"))

    await eventually(handed_out, "something was left over")
    singly = "claims.claim_unblocked"
    after = {one.statement: one.calls for one in load.snapshot().statements}
    assert after.get(singly, 0) - before.get(singly, 0) <= 5


async def test_who_waits_for_its_own_buckets_holds_nobody_up(start_server: StartServer, database: Database) -> None:
    """Its recollect waits for a bucket that an admin works on; it asks besides, and others are served all the same."""
    await configure(database, bucket_size=1)
    server = await start_server()
    admin = await server.admin()
    await admin.add(30)
    peer, other = await server.volunteer("waits"), await server.volunteer("other")
    bucket = await peer.bucket()
    second, _ = await join_again(server, "waits")
    async with database.transaction() as db:
        await db.execute("SELECT FROM bucket WHERE bucket_id = $1::uuid FOR UPDATE", bucket["bucket_id"])
        back = second.send("recollect", holds=[{"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}])
        async with database.connection() as watch:
            await blocked(watch)
        await peer.ok("ask", service="dm_check", count=3)
        for _ in range(5):
            assert (await other.submit(await within(other.bucket(), 1)))["closed"]
    assert (await back)["regranted"] == [bucket["bucket_id"]]
    assert (await peer.push("bucket_lost"))["reason"] == "released"
    for _ in range(3):
        await peer.push("bucket", 2.0)


async def test_who_gives_buckets_back_by_final_submits_holds_no_other_submit_up(
    start_server: StartServer, database: Database
) -> None:
    """Each of them takes a transaction of its own, and they wait for something else that is at work on the client."""
    await configure(database, bucket_size=2)
    server = await start_server()
    admin = await server.admin()
    await admin.add(80)
    peer, other = await server.volunteer("leaves-much"), await server.volunteer("other")
    await peer.ok("ask", service="dm_check", count=10)
    buckets = [await peer.push("bucket") for _ in range(10)]
    async with database.transaction() as db:
        await db.execute("SELECT FROM membership WHERE client_id = 'leaves-much' FOR UPDATE")
        answers = [peer.send("submit", **submission(bucket, items=[bucket["items"][0]["item"]])) for bucket in buckets]
        async with database.connection() as watch:
            await blocked(watch, 3)  # two of them, and the count of what it did
        for _ in range(5):
            assert (await within(other.submit(await other.bucket()), 1))["closed"]
    assert {(await answer)["type"] for answer in answers} == {"stored"}
