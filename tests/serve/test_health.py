"""Harmful clients on a real node: each is flagged, gets less, and recovers when it works again.

Clients that only look harmful stay ok.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import pytest

from coordinator.model import ClientId, ServiceId
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer
from tests.serve.tools import CHOICE, configure, eventually, execute, join_again, no_push, report, reset, value


async def health(admin: Admin, client: str) -> tuple[str, str | None]:
    shown = await admin.ok("client.show", client_id=client)
    (only,) = shown["services"]
    assert (only["health"], only["reason"]) == (shown["health"], shown["reason"])
    return shown["health"], shown["reason"]


async def becomes(admin: Admin, client: str, state: str, word: str | None = None) -> None:
    """Wait until a client is in that state, for a reason that begins so."""

    async def is_so() -> bool:
        now, reason = await health(admin, client)
        return now == state and (reason is None if word is None else (reason or "").startswith(word))

    await eventually(is_so, f"{client} is not {state}")


async def allowed(peer: Volunteer, count: int = 5) -> int:
    """Return the number of buckets that an ask would get; leaves nothing pending."""
    asked = await peer.ok("ask", service="dm_check", count=0)
    limit = int(asked["limit"])
    asked = await peer.ok("ask", service="dm_check", count=count)
    assert asked["count"] <= limit
    return int(asked["count"])


async def works(peer: Volunteer, times: int = 1) -> None:
    """Take a bucket and settle all of it."""
    for _ in range(times):
        stored = await peer.submit(await peer.bucket())
        assert stored["closed"], stored


async def looked_at(server: Server) -> None:
    """Write the counters and run the health rules, the comparison with other clients too."""
    await server.node.parts.statistics.recorder.write()
    server.node.parts.work.health_monitor._compared = 0.0
    await server.node.parts.work.health_monitor.look()


# Those that do harm


async def test_one_that_lets_buckets_die_and_asks_on(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=2, dead_after=1, release_after=60)
    server = await start_server()
    admin, bad, good = await server.admin(), await server.volunteer("bad"), await server.volunteer("good")
    await admin.add(60)
    first = await bad.bucket()
    assert (await bad.push("bucket_dead"))["bucket_id"] == first["bucket_id"]
    await becomes(admin, "bad", "watched", "dead buckets above zero: 1")
    second = await bad.bucket()
    await becomes(admin, "bad", "flagged", "asks on while older ones die: took 1 ")
    assert await health(admin, "good") == ("ok", None)

    # It is held short, nobody else is, and everybody who may see it can.
    assert (await bad.ok("ask", service="dm_check", count=5))["count"] == 1
    await no_push(bad)
    assert (await good.ok("ask", service="dm_check", count=5))["count"] == 5
    flagged = await admin.ok("client.list", flagged=True)
    assert [row["client_id"] for row in flagged["rows"]] == ["bad"]
    others = await admin.ok("client.list", flagged=False, service="dm_check")
    assert [row["client_id"] for row in others["rows"]] == ["good"]
    lines = await admin.ok("activity.list", client_id="bad", action="client.health")
    assert [line["outcome"].split(":")[:2] for line in lines["rows"]] == [
        ["dm_check", " flagged"],
        ["dm_check", " watched"],
    ]
    assert server.node.events.counts["health"] == 2

    # It recovers by working.
    for bucket in (first, second):
        assert (await bad.submit(bucket))["closed"]
    assert (await bad.submit(await bad.push("bucket")))["closed"]
    await becomes(admin, "bad", "ok")
    asked = await bad.ok("ask", service="dm_check", count=5)
    assert (asked["count"], asked["limit"]) == (5, 10)


async def test_one_that_asks_and_never_submits(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1, dead_after=100)
    server = await start_server()
    admin, bad = await server.admin(), await server.volunteer("bad")
    await admin.add(20)
    for _ in range(3):
        await bad.bucket()
        await asyncio.sleep(1.05)  # it does nothing, for as long as is too long
    await becomes(admin, "bad", "watched", "asks faster than it settles: 2 asks")
    for _ in range(2):
        await bad.bucket()
        await asyncio.sleep(1.05)
    await becomes(admin, "bad", "flagged", "asks faster than it settles: 4 asks")
    assert await allowed(bad) == 1
    await no_push(bad)


async def test_one_whose_submits_are_refused(
    server: Server, database: Database, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(1)
    bucket = await volunteer.bucket()
    for count in range(1, 6):
        assert (await volunteer.submit(bucket, dm="PERHAPS"))["code"] == "bad_result"
        state = "flagged" if count >= 5 else "watched" if count >= 3 else "ok"
        await looked_at(server)
        assert (await health(admin, "volunteer"))[0] == state, count
    await becomes(admin, "volunteer", "flagged", "errors in a row: 5 submits were refused")


async def test_what_a_flagged_one_asked_for_before_comes_one_by_one(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, volunteer = await server.admin(), await server.volunteer("volunteer")
    await admin.add(1)
    bucket = await volunteer.bucket()
    assert (await volunteer.ok("ask", service="dm_check", count=5))["pending"] == 5
    for _ in range(5):
        await volunteer.submit(bucket, dm="PERHAPS")
    await becomes(admin, "volunteer", "flagged", "errors in a row")
    await admin.add(5, prefix="later")
    other = await server.volunteer("other")
    await works(other)  # what was added is at hand, and not for the one that holds a bucket
    assert volunteer.pushes.empty()
    assert (await volunteer.submit(bucket))["closed"]
    for _ in range(2):
        bucket = await volunteer.push("bucket")
        await works(other)
        assert volunteer.pushes.empty()
        assert await value(database, "SELECT count(*) FROM bucket WHERE client_id = 'volunteer'") == 1
        assert (await volunteer.submit(bucket))["closed"]
    await becomes(admin, "volunteer", "ok")


async def give_back(peer: Volunteer, bucket: Message) -> Volunteer:
    await peer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    return peer


async def cut_off(server: Server, peer: Volunteer) -> Volunteer:
    reset(peer)
    again, _ = await join_again(server, peer.client_id)
    return again


@pytest.mark.parametrize("way", ["give back", "cut off"])
@pytest.mark.long
async def test_one_that_returns_whatever_it_takes(start_server: StartServer, database: Database, way: str) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, volunteer = await server.admin(), await server.volunteer("volunteer")
    await admin.add(10)
    counter = "given_back" if way == "give back" else "disconnects"
    for number in range(1, 6):
        bucket = await volunteer.bucket()
        volunteer = await (give_back(volunteer, bucket) if way == "give back" else cut_off(server, volunteer))

        async def counted(number: int = number) -> bool:
            return bool(await value(database, f"SELECT {counter} >= $1 FROM membership", number))

        await eventually(counted, "it is counted")
        # What comes back within a second counts once.
        await value(database, "SELECT pg_sleep_until(returned_at + interval '1 s')::text FROM membership")
    await becomes(admin, "volunteer", "flagged", "claims without submitting: returned what it took 4 times in a row")
    assert await allowed(volunteer) == 1


async def test_one_that_is_too_fast_to_be_true(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=100)
    server = await start_server()
    admin = await server.admin()
    await admin.add(600)
    honest = [await server.volunteer(f"honest{n}") for n in range(5)]

    async def work_slowly(peer: Volunteer) -> None:
        bucket = await peer.bucket()
        await asyncio.sleep(2.0)  # 20 ms an item
        assert (await peer.submit(bucket))["closed"]

    await asyncio.gather(*map(work_slowly, honest))
    fast = await server.volunteer("fast")
    await works(fast)
    await becomes(admin, "fast", "flagged", "too fast to be true: ")
    await looked_at(server)
    for peer in honest:
        assert await health(admin, peer.client_id) == ("ok", None)


async def test_one_whose_results_are_out_of_line(start_server: StartServer, database: Database) -> None:
    until_the_hour = 3600 - time() % 3600
    if until_the_hour < 20:
        await asyncio.sleep(until_the_hour)  # results are compared hour by hour
    await configure(database, bucket_size=200)
    server = await start_server()
    admin = await server.admin()
    await admin.add(800)
    clients = [await server.volunteer(name) for name in ("ann", "bob", "cat", "wrong")]
    for peer in clients:
        bucket = await peer.bucket()
        items = [one["item"] for one in bucket["items"]]
        results = [{"item": item, "dm": "DM" if item % 5 < 2 else "NON_DM"} for item in items]
        if peer.client_id == "wrong":
            results = [{"item": item, "dm": "UNKNOWN"} for item in items]
        stored = await peer.ok(
            "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=results, final=True
        )
        assert stored["closed"]
    await becomes(admin, "wrong", "flagged", "results out of line with the others: 0% ")
    await looked_at(server)
    for peer in clients[:3]:
        assert await health(admin, peer.client_id) == ("ok", None)
    assert await value(database, "SELECT count(*) FROM client_label WHERE client_id = 'wrong'") == 1


async def test_many_identities_of_one_address_put_no_honest_one_out_of_line(
    start_server: StartServer, database: Database
) -> None:
    until_the_hour = 3600 - time() % 3600
    if until_the_hour < 20:
        await asyncio.sleep(until_the_hour)
    await configure(database, bucket_size=200)
    server = await start_server(trusted_proxies=("127.0.0.1",), registration="open", viewers="open")
    admin = await server.admin()
    await admin.add(1400)

    async def work(name: str, address: str, dm: str) -> Volunteer:
        peer = await server.client(additional_headers={"X-Forwarded-For": address})
        await peer.hello(name)
        await peer.ok("register", screen_name=name, services=CHOICE)
        assert (await peer.submit(await peer.bucket(), dm))["closed"]
        return peer

    for number in range(6):
        await work(f"liar{number}", "203.0.113.66", "NON_DM")
    await work("honest", "198.51.100.7", "DM")
    await looked_at(server)
    assert await health(admin, "honest") == ("ok", None)
    # The same from three addresses, and they are believed.
    await execute(database, "UPDATE session SET address = '192.0.2.1' WHERE client_id IN ('liar0', 'liar1')")
    await execute(database, "UPDATE session SET address = '192.0.2.2' WHERE client_id IN ('liar2', 'liar3')")
    server.node.parts.core.counters.look(ClientId("honest"), ServiceId(1))
    await becomes(admin, "honest", "flagged", "results out of line with the others: ")


async def test_another_node_hears_of_it(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    here, there = await start_server(node_name="here"), await start_server(node_name="there")
    admin = await here.admin()
    await admin.add(10)
    bad = await here.volunteer("bad")
    elsewhere, _ = await join_again(there, "bad")
    bucket = await bad.bucket()
    for _ in range(5):
        await bad.submit(bucket, dm="PERHAPS")

    async def limited() -> bool:
        return bool((await elsewhere.ok("ask", service="dm_check", count=0))["limit"] == 1)

    await eventually(limited, "the other node did not hear of it")
    assert await allowed(elsewhere) == 1
    await no_push(elsewhere)  # what it holds here counts there
    assert (await bad.submit(bucket))["closed"]
    await elsewhere.push("bucket")


# Those that only look like it


Play = Callable[[Server, Admin, Volunteer], Awaitable[Any]]


async def slow(server: Server, admin: Admin, peer: Volunteer) -> None:
    """Holds one bucket for longer than `dead_after`, and settles an item in time, every time."""
    bucket = await peer.bucket()
    for item in bucket["items"]:
        await asyncio.sleep(0.6)
        assert (await peer.submit(bucket, items=[item["item"]], final=False))["stored"] == 1


async def rate_limited(server: Server, admin: Admin, peer: Volunteer) -> None:
    """Reports again and again, and gets nothing meanwhile."""
    await works(peer)
    for _ in range(6):
        await report(peer, kind="upstream_limited", retry_after=60)
        assert (await peer.ok("ask", service="dm_check", count=1))["type"] == "asked"


async def newly_started(server: Server, admin: Admin, peer: Volunteer) -> None:
    """Takes all that it may before it has settled anything."""
    for count in (10, 10):
        assert (await peer.ok("ask", service="dm_check", count=count))["count"] == count
    for _ in range(20):
        await peer.push("bucket")


async def one_bad_submit(server: Server, admin: Admin, peer: Volunteer) -> None:
    bucket = await peer.bucket()
    assert (await peer.submit(bucket, dm="PERHAPS"))["code"] == "bad_result"
    assert (await peer.submit(bucket))["closed"]


async def stops_and_gives_all_back(server: Server, admin: Admin, peer: Volunteer) -> None:
    await peer.ok("ask", service="dm_check", count=10)
    for bucket in [await peer.push("bucket") for _ in range(10)]:
        await give_back(peer, bucket)


async def orders_ahead(server: Server, admin: Admin, peer: Volunteer) -> None:
    """Asks for the next bucket before it has settled anything of the one that it has held for long."""
    bucket = await peer.bucket()
    for _ in range(4):
        await asyncio.sleep(1.05)  # longer than the server's patience
        following = await peer.bucket()
        assert (await peer.submit(bucket))["closed"]
        bucket = following


@pytest.mark.parametrize(
    "play",
    [slow, rate_limited, newly_started, one_bad_submit, stops_and_gives_all_back, orders_ahead],
    ids=lambda play: play.__name__,
)
async def test_an_innocent_stays_ok(start_server: StartServer, database: Database, play: Play) -> None:
    await configure(database, bucket_size=4, dead_after=1 if play is slow else 60, release_after=60)
    server = await start_server()
    admin, peer = await server.admin(), await server.volunteer("innocent")
    await admin.add(100)
    await play(server, admin, peer)
    await looked_at(server)
    assert await health(admin, "innocent") == ("ok", None)
    assert (await admin.ok("client.list", flagged=True))["rows"] == []
    assert server.node.events.counts["health"] == 0
    assert await value(database, "SELECT count(*) FROM activity WHERE action = 'client.health'") == 0


@pytest.mark.long
async def test_drains_and_crashes_of_the_server_are_nobodys_fault(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1)
    first = await start_server(node_name="first", drain_grace=0.2)
    admin = await first.admin()
    await admin.add(20)
    peer = await first.volunteer("innocent")
    for _ in range(3):
        await peer.bucket()
    server = await start_server(node_name="second")
    for number in range(5):
        await first.node.drain()
        assert await peer.close_code() == 1012
        peer, welcome = await join_again(server, "innocent", holds=[])
        assert len(welcome["recollected"]["regranted"]) == 3
        first, server = server, await start_server(node_name=f"node{number}", drain_grace=0.2)
    await looked_at(first)
    assert await health(await first.admin(), "innocent") == ("ok", None)
    assert await value(database, "SELECT well + died + returned + hoarded FROM membership") == 0


async def test_who_settles_something_between_has_not_returned_it_all(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, volunteer = await server.admin(), await server.volunteer("volunteer")
    await admin.add(20)
    for _ in range(6):
        await give_back(volunteer, await volunteer.bucket())
        await works(volunteer)
        await looked_at(server)
    assert await health(admin, "volunteer") == ("ok", None)
    given_back = await value(database, "SELECT given_back FROM membership")
    assert given_back == 6
