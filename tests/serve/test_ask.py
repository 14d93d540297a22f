"""Asking: adding up, limits, taking turns, waiting, giving back."""

from __future__ import annotations

import asyncio
import json
from time import monotonic

from websockets.asyncio.client import connect

from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.flow.room import stop_clock
from tests.harness import Admin, Message, Server, Volunteer, secret_of
from tests.serve.tools import add_service, configure, eventually, execute, join_again, no_push, report, set_state, value


def ids(bucket: Message) -> list[int]:
    return sorted(item["item"] for item in bucket["items"])


async def ask(peer: Volunteer, count: int, service: str = "dm_check") -> tuple[int, int]:
    """Ask; returns the buckets granted and pending."""
    asked = await peer.ok("ask", service=service, count=count)
    assert asked["limit"] == 10
    return asked["count"], asked["pending"]


async def release(peer: Volunteer, bucket: Message) -> Message:
    return await peer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])


async def test_asks_add_up_and_nought_withdraws(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    assert await ask(volunteer, 2) == (2, 2)
    assert await ask(volunteer, 3) == (3, 5)
    assert await ask(volunteer, 0) == (0, 0)
    await admin.add(3)
    other = await server.volunteer("other")
    assert len(ids(await other.bucket())) == 3
    await no_push(volunteer)
    assert await ask(volunteer, 1) == (1, 1)


async def test_asks_are_clamped_and_never_refused(volunteer: Volunteer) -> None:
    assert await ask(volunteer, 11) == (10, 10)
    assert await ask(volunteer, 2**62) == (10, 20)
    assert await ask(volunteer, 1) == (0, 20)
    assert await ask(volunteer, 0) == (0, 0)
    assert await ask(volunteer, 10**30) == (10, 10)


async def test_what_is_held_does_not_cut_an_ask_and_the_rest_comes_once_less_is_held(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1, max_held_buckets=3)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(10)
    assert (await client.ok("ask", service="dm_check", count=10))["count"] == 3
    buckets = [await client.push("bucket") for _ in range(3)]
    assert await client.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    assert await ask(client, 2) == (2, 2)
    await no_push(client)
    await client.submit(buckets[0])
    await client.push("bucket")
    await no_push(client)
    await release(client, buckets[1])
    await client.push("bucket")


async def test_limits_count_for_all_sessions_of_an_identity(server: Server, volunteer: Volunteer) -> None:
    twin, _ = await join_again(server, "volunteer")
    assert await ask(volunteer, 10) == (10, 10)
    assert await ask(twin, 10) == (10, 10)  # `pending` is the session's
    assert await ask(volunteer, 5) == (0, 10)
    assert await ask(twin, 0) == (0, 0)
    assert await ask(volunteer, 5) == (5, 15)
    volunteer.cut()

    async def withdrawn() -> bool:
        await ask(twin, 0)
        return await ask(twin, 10) == (10, 10)

    await eventually(withdrawn, "what an ended session asked is still pending")


async def test_a_service_may_have_tighter_limits(start_server: StartServer, database: Database) -> None:
    await configure(database, max_buckets_per_ask=2, max_held_buckets=3)
    client = await (await start_server()).volunteer("client")
    asked = await client.ok("ask", service="dm_check", count=5)
    assert (asked["count"], asked["pending"], asked["limit"]) == (2, 2, 2)
    asked = await client.ok("ask", service="dm_check", count=5)
    assert (asked["count"], asked["pending"]) == (1, 3)
    services = (await client.ok("services"))["services"]
    settings = next(one["settings"] for one in services if one["service"] == "dm_check")
    assert (settings["max_buckets_per_ask"], settings["max_held_buckets"]) == (2, 3)


async def test_asked_comes_before_the_buckets(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin = await server.admin()
    await server.volunteer("client")
    await admin.add(40)
    async with connect(f"{server.url}/v1/client") as connection:
        await connection.send(
            json.dumps({"type": "hello", "protocol": 1, "client_id": "client", "secret": secret_of("client")})
        )
        assert json.loads(await connection.recv())["type"] == "welcome"
        for wait in (True, False, True, False):
            text = json.dumps({"type": "ask", "service": "dm_check", "count": 4, "wait": wait, "ref": "a"})
            await connection.send(text)
            frames = [json.loads(await within(connection.recv(), 5)) for _ in range(5)]
            assert [frame["type"] for frame in frames] == ["asked"] + ["bucket"] * 4
            assert [frame.get("ref") for frame in frames] == ["a"] + [None] * 4
            assert frames[0]["count"] == 4


async def test_without_waiting_the_count_is_what_is_pushed(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=2)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(5)
    asked = await client.ok("ask", service="dm_check", count=10, wait=False)
    assert (asked["count"], asked["pending"]) == (3, 0)
    buckets = [await client.push("bucket") for _ in range(3)]
    assert sorted(len(ids(bucket)) for bucket in buckets) == [1, 2, 2]
    answer = await client.ask_for("ask", service="dm_check", count=10, wait=False)
    assert (answer["code"], answer["retry_after"] > 0) == ("no_work", True)
    await admin.add(2, prefix="later")
    await no_push(client)


async def test_without_waiting_behind_asks_that_wait(server: Server, volunteer: Volunteer) -> None:
    assert await ask(volunteer, 3) == (3, 3)
    other = await server.volunteer("other")
    answers = await asyncio.gather(
        *(peer.ask_for("ask", service="dm_check", count=2, wait=False) for peer in (volunteer, other, other))
    )
    assert [answer.get("code") for answer in answers] == ["no_work"] * 3
    assert await ask(volunteer, 1) == (1, 4)


async def test_a_large_ask_does_not_starve_a_small_one(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, large, small = await server.admin(), await server.volunteer("large"), await server.volunteer("small")
    assert await ask(large, 10) == (10, 10)
    assert await ask(large, 10) == (10, 20)
    assert await ask(small, 1) == (1, 1)
    await admin.add(4)
    assert len(ids(await small.push("bucket"))) == 1
    for _ in range(3):
        await large.push("bucket")


async def test_a_large_ask_does_not_starve_one_of_another_service(
    start_server: StartServer, database: Database
) -> None:
    await add_service(database, "second", bucket_size=1)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await client.ok("join", service="second", profile={"source": "client"})
    assert await ask(client, 10) == (10, 10)
    assert await ask(client, 1, "second") == (1, 1)
    await admin.add(1, services=["second"])
    assert (await client.push("bucket"))["service"] == "second"
    assert await ask(client, 0) == (0, 0)


async def test_waiting_items_never_wait_for_a_full_bucket(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(185)
    first, second = await volunteer.bucket(), await volunteer.bucket()
    assert sorted((len(ids(first)), len(ids(second)))) == [5, 180]


async def test_a_paused_service_lets_asks_wait_and_submits_count(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(190)
    bucket = await volunteer.bucket()
    await set_state(server, "paused")
    assert (await volunteer.push("service"))["state"] == "paused"
    assert await ask(volunteer, 1) == (1, 1)
    assert await volunteer.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    part = await volunteer.submit(bucket, items=ids(bucket)[:1], final=False)
    assert part["stored"] == 1
    assert (await volunteer.submit(bucket, items=ids(bucket)[1:]))["closed"] is True
    await no_push(volunteer)
    await set_state(server, "active")
    assert (await volunteer.push("service"))["state"] == "active"
    await volunteer.push("bucket")


async def test_a_report_stops_work_until_then_and_counts_no_fault(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    assert await ask(volunteer, 1) == (1, 1)  # asked before the report, and still wanted after it
    begun = monotonic()
    reported = await report(volunteer, kind="upstream_limited", retry_after=1.2, text="too many")
    assert (reported["type"], reported["retry_after"]) == ("reported", 1.2)
    await admin.add(1)
    other = await server.volunteer("other")
    await other.submit(await other.bucket())
    await admin.add(1, prefix="second")
    assert await volunteer.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    await volunteer.push("bucket")
    assert 1.1 < monotonic() - begun < 4
    row = (await admin.ok("client.show", client_id="volunteer"))["services"][0]
    assert (row["given_back"], row["disconnects"], row["bad_submits"], row["dead"]) == (0, 0, 0, 0)


async def test_a_report_without_a_time_means_a_minute(volunteer: Volunteer) -> None:
    assert (await report(volunteer))["retry_after"] == 60


async def test_a_bucket_given_back_is_offered_to_others_only(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(3)
    bucket = await volunteer.bucket()
    released = await release(volunteer, bucket)
    assert (released["type"], released["bucket_id"], released["remaining"]) == ("released", bucket["bucket_id"], 3)
    assert await volunteer.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    assert await ask(volunteer, 1) == (1, 1)
    other = await server.volunteer("other")
    again = await other.bucket()
    assert (again["bucket_id"], again["attempt"]) == (bucket["bucket_id"], 1)  # no attempt
    await admin.add(2, prefix="new")
    assert len(ids(await volunteer.push("bucket"))) == 2  # what is new is for it
    row = (await admin.ok("client.show", client_id="volunteer"))["services"][0]
    assert row["given_back"] == 1


async def test_who_keeps_giving_back_waits_longer_and_longer_until_it_settles_something(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("picky")
    await admin.add(20)
    bucket = await client.bucket()
    for least, most in ((0.0, 0.9), (0.9, 1.9), (1.9, 3.9)):
        await release(client, bucket)
        begun = monotonic()
        bucket = await client.bucket()
        assert least <= monotonic() - begun < most
    await client.submit(bucket)
    begun = monotonic()
    bucket = await client.bucket()
    await release(client, bucket)
    bucket = await client.bucket()
    assert monotonic() - begun < 0.9


async def test_waiting_clients_do_not_hold_up_others(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, picky, other = await server.admin(), await server.volunteer("picky"), await server.volunteer("other")
    await admin.add(20)
    for _ in range(2):
        await release(picky, await picky.bucket())
    assert await ask(picky, 5) == (5, 5)
    for _ in range(10):
        bucket = await within(other.bucket(), 1)
        await other.submit(bucket)
    assert picky.pushes.empty()
    answer = await within(picky.ask_for("ask", service="dm_check", count=1, wait=False), 0.5)
    assert answer["code"] == "no_work"


async def test_leaving_while_holding_releases_with_bucket_lost(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(3)
    bucket = await volunteer.bucket()
    assert await ask(volunteer, 2) == (2, 2)
    left = volunteer.send("leave", service="dm_check")
    lost = await volunteer.push("bucket_lost")
    assert (lost["bucket_id"], lost["claim"], lost["reason"]) == (bucket["bucket_id"], bucket["claim"], "released")
    assert (await left)["type"] == "left"
    assert (await volunteer.submit(bucket))["code"] == "not_joined"
    await volunteer.ok("join", service="dm_check", profile={"source": "volunteer"})
    assert (await volunteer.submit(bucket))["code"] == "stale_claim"
    other = await server.volunteer("other")
    assert (await other.bucket())["attempt"] == 1
    await admin.add(1, prefix="new")
    await no_push(volunteer)  # leaving withdrew what was pending


async def test_a_bucket_that_three_clients_cut_off_is_not_offered_whole_at_once(
    server: Server, admin: Admin, database: Database
) -> None:
    await admin.add(30)
    for n in range(3):
        client = await server.volunteer(f"client{n}")
        await execute(database, "UPDATE membership SET settled = 1")
        bucket = await client.bucket()
        assert (bucket["attempt"], len(ids(bucket))) == (n + 1, 30)
        client.cut()

        async def ended(name: str = client.client_id) -> bool:
            ended_at = await value(database, "SELECT ended_at FROM session WHERE client_id = $1", name)
            return ended_at is not None

        await eventually(ended, "not ended")
    fourth = await server.volunteer("fourth")
    assert await fourth.refused("ask", service="dm_check", count=1, wait=False) == "no_work"


async def test_the_pool_is_filled_before_it_is_empty(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=2)
    server = await start_server()
    await stop_clock(server.node)
    admin, client = await server.admin(), await server.volunteer("client")
    ready = "SELECT count(*) FROM bucket WHERE state = 'ready'"
    await admin.add(100)
    for left in range(19, 9, -1):
        await client.submit(await client.bucket())
        assert await value(database, ready) == left, "20 were made for one client, and half of them are enough"
    await client.submit(await client.bucket())

    async def full() -> bool:
        return bool(await value(database, ready) == 20)

    await eventually(full, "the pool was filled up again")
