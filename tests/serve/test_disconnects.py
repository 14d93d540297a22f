"""Each kind of end of a connection: its buckets go to a waiting client at once."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from statistics import median
from time import perf_counter

import pytest

from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer, submission
from tests.serve.tools import (
    Blocked,
    RawPeer,
    Swallower,
    configure,
    eventually,
    half_close,
    join_again,
    reset,
    results,
    value,
)

TEXT, PING, PONG = 1, 9, 10
"""Opcodes.  RFC 6455, 5.2"""

pytestmark = pytest.mark.measured

AT_ONCE = 1.0
"""Seconds; much less than any timeout of the server."""


def ids(bucket: Message) -> list[int]:
    return sorted(item["item"] for item in bucket["items"])


async def started(server: Server, *client_ids: str) -> tuple[asyncio.subprocess.Process, list[Message]]:
    """A process that holds a bucket on each of its connections, and those buckets."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.serve.holder_program",
        f"{server.url}/v1/client",
        *client_ids,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [await within(process.stdout.readline(), 20) for _ in client_ids]
    return process, [json.loads(line) for line in lines]


def close_frame(peer: Volunteer) -> None:
    peer.connection.protocol.send_close(1000)
    peer.connection.send_data()


@pytest.mark.parametrize("end", [close_frame, half_close, reset, Volunteer.cut], ids=lambda end: end.__name__)
async def test_what_a_session_held_goes_on_at_once(
    server: Server, admin: Admin, volunteer: Volunteer, end: Callable[[Volunteer], None]
) -> None:
    await admin.add(5)
    waiting = await server.volunteer("waiting")
    bucket = await volunteer.bucket()
    first = ids(bucket)[0]
    assert (await volunteer.submit(bucket, items=[first], final=False))["stored"] == 1
    await waiting.ok("ask", service="dm_check", count=1)
    begun = perf_counter()
    end(volunteer)
    again = await waiting.push("bucket", AT_ONCE)
    assert perf_counter() - begun < AT_ONCE
    assert (again["bucket_id"], again["attempt"]) == (bucket["bucket_id"], 2)
    assert again["claim"] > bucket["claim"]
    assert ids(again) == ids(bucket)[1:]  # settled items stay settled

    late, _ = await join_again(server, "volunteer")
    assert (await late.submit(bucket, items=ids(bucket)[1:]))["code"] == "stale_claim"
    assert (await late.submit(bucket, items=[first]))["duplicate"] is True
    assert (await waiting.submit(again))["closed"] is True
    assert await results(server.database) == 5


async def test_a_killed_process(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=2)
    server = await start_server()
    admin, waiting = await server.admin(), await server.volunteer("waiting")
    await admin.add(10)
    process, buckets = await started(server, *(f"killed{n}" for n in range(5)))
    assert len({bucket["bucket_id"] for bucket in buckets}) == 5
    await waiting.ok("ask", service="dm_check", count=5)
    begun = perf_counter()
    process.send_signal(signal.SIGKILL)
    again = [await waiting.push("bucket", AT_ONCE) for _ in buckets]
    assert perf_counter() - begun < AT_ONCE
    assert {one["bucket_id"] for one in again} == {one["bucket_id"] for one in buckets}
    assert {one["attempt"] for one in again} == {2}
    await process.wait()


async def test_a_silent_peer_is_found_by_ping_at_the_timeout(start_server: StartServer) -> None:
    server = await start_server(ping_interval=0.5, ping_timeout=0.5)
    admin, waiting = await server.admin(), await server.volunteer("waiting")
    proxy = await Swallower.open(server)
    silent = await Volunteer.open(f"{proxy.url}/v1/client", server.stack)
    await silent.hello("silent")
    await silent.ok("register", screen_name="s", services=[{"service": "dm_check", "profile": {"source": "s"}}])
    await admin.add(1)
    bucket = await silent.bucket()
    await waiting.ok("ask", service="dm_check", count=1)
    proxy.swallow()
    begun = perf_counter()
    again = await waiting.push("bucket")
    assert 0.2 < perf_counter() - begun < 1.7  # no close handshake that nobody answers
    assert again["bucket_id"] == bucket["bucket_id"]
    assert waiting.pushes.empty()
    silent.cut()


@asynccontextmanager
async def crowd(server: Server) -> AsyncIterator[None]:
    """Sessions that come and go, fifty a second."""

    async def visit() -> None:
        while True:
            visitor = await server.client()
            await asyncio.sleep(0.02)
            await visitor.close()

    visits = asyncio.create_task(visit())
    try:
        yield
    finally:
        visits.cancel()
        await asyncio.wait([visits])


async def pinged(idle: RawPeer) -> float:
    """Answer the next ping; returns the moment."""
    while (await idle.read())[0] != PING:
        pass
    idle.frame(b"", opcode=PONG)
    return perf_counter()


async def test_an_idle_session_is_pinged_each_interval_whoever_comes_and_goes(start_server: StartServer) -> None:
    server = await start_server(ping_interval=1.0, ping_timeout=1.0)
    idle = await RawPeer.open(server)
    await idle.hello("idle", register=False)
    async with crowd(server):
        moments = [await pinged(idle) for _ in range(5)]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert max(gaps) < 1.6, "it waits behind those that came after it"


async def test_a_frozen_session_is_cut_after_interval_and_timeout_whoever_comes_and_goes(
    start_server: StartServer,
) -> None:
    server = await start_server(ping_interval=1.0, ping_timeout=1.0)
    idle = await RawPeer.open(server)
    await idle.hello("idle", register=False)
    async with crowd(server):
        await pinged(idle)
        begun = await pinged(idle)  # in the middle of its life
        assert await idle.close_code() == 1006
    assert perf_counter() - begun < 2.7, "one interval, one timeout, and what a tick takes"


async def test_a_claim_in_flight_while_its_session_ends_costs_nothing(
    server: Server, database: Database, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(3)
    async with Blocked(database) as blocked:
        await volunteer.ok("ask", service="dm_check", count=1)
        await blocked.until_one_waits()
        volunteer.cut()

        async def ended() -> bool:
            return bool(await value(database, "SELECT ended_at FROM session WHERE client_id = 'volunteer'"))

        await eventually(ended, "the session has not ended")
        waiting = await server.volunteer("waiting")
        await waiting.ok("ask", service="dm_check", count=1)
    bucket = await waiting.push("bucket")
    assert (bucket["attempt"], len(ids(bucket))) == (1, 3)
    row = (await admin.ok("client.show", client_id="volunteer"))["services"][0]
    assert (row["disconnects"], row["given_back"]) == (0, 0)
    again, _ = await join_again(server, "volunteer", holds=[])
    assert (await again.submit(bucket))["code"] == "not_owner"


async def test_a_claim_in_flight_while_it_is_withdrawn_goes_back(
    server: Server, database: Database, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(3)
    async with Blocked(database) as blocked:
        await volunteer.ok("ask", service="dm_check", count=1)
        await blocked.until_one_waits()
        assert (await volunteer.ok("ask", service="dm_check", count=0))["pending"] == 0
    waiting = await server.volunteer("waiting")
    assert (await waiting.bucket())["attempt"] == 1
    await volunteer.ok("services")
    assert volunteer.pushes.empty()


async def test_a_claim_in_flight_for_an_ask_that_does_not_wait_costs_nothing_either(
    server: Server, database: Database, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(3)
    waiting = await server.volunteer("waiting")
    async with Blocked(database) as blocked:
        volunteer.send("ask", service="dm_check", count=1, wait=False)
        await blocked.until_one_waits()
        volunteer.cut()
        for _ in range(5):
            await waiting.ok("services")  # the server has seen the end by now: it shares our event loop
        await waiting.ok("ask", service="dm_check", count=1)
    bucket = await waiting.push("bucket")
    row = (await admin.ok("client.show", client_id="volunteer"))["services"][0]
    assert (bucket["attempt"], row["disconnects"]) == (1, 0)


async def test_a_claim_in_flight_while_its_client_unregisters_or_leaves(
    server: Server, database: Database, admin: Admin
) -> None:
    waiting = await server.volunteer("waiting")
    for kind, fields in (("unregister", {}), ("leave", {"service": "dm_check"})):
        await admin.add(3, prefix=kind)
        client = await server.volunteer(f"client-{kind}")
        async with Blocked(database) as blocked:
            await client.ok("ask", service="dm_check", count=1)
            await blocked.until_one_waits()
            gone = client.send(kind, **fields)
            await waiting.ok("services")
        assert (await gone)["type"] != "error"
        bucket = await waiting.bucket()
        assert bucket["attempt"] == 1
        assert (await waiting.submit(bucket))["stored"] == 3


async def test_two_clients_asking_at_the_same_instant_never_get_the_same_bucket(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin = await server.admin()
    ada, bob = await server.volunteer("ada"), await server.volunteer("bob")
    await admin.add(400)
    seen: set[str] = set()
    for _ in range(200):
        first, second = await asyncio.gather(ada.bucket(), bob.bucket())
        assert first["bucket_id"] != second["bucket_id"]
        assert not set(ids(first)) & set(ids(second))
        stored = await asyncio.gather(ada.submit(first), bob.submit(second))
        assert [answer["stored"] for answer in stored] == [1, 1]
        seen |= {first["bucket_id"], second["bucket_id"]}
    assert len(seen) == await results(database) == 400


async def test_fifty_kills_reach_the_waiting_client_within_100_ms(server: Server, admin: Admin) -> None:
    waiting = await server.volunteer("waiting")
    times = []
    for kill in range(50):
        await admin.add(1, prefix=f"kill{kill}_")
        victim = await server.volunteer(f"victim{kill}")
        bucket = await victim.bucket()
        await waiting.ok("ask", service="dm_check", count=1)
        begun = perf_counter()
        reset(victim)
        again = await waiting.push("bucket")
        times.append(perf_counter() - begun)
        assert again["bucket_id"] == bucket["bucket_id"]
        assert (await waiting.submit(again))["closed"] is True
    assert median(times) < 0.1, sorted(times)


async def test_new_items_reach_a_waiting_client_within_200_ms(server: Server, admin: Admin) -> None:
    waiting = await server.volunteer("waiting")
    times = []
    for round_ in range(15):
        await waiting.ok("ask", service="dm_check", count=1)
        begun = perf_counter()
        adding = admin.send("item.add", items=[{"key": f"new{round_}"}])
        bucket = await waiting.push("bucket")
        times.append(perf_counter() - begun)
        await adding
        assert (await waiting.submit(bucket))["closed"] is True
    assert median(times) < 0.2, sorted(times)


async def test_many_sessions_of_a_killed_client_and_a_submit_under_way(server: Server, admin: Admin) -> None:
    waiting = await server.volunteer("waiting")
    for round_ in range(10):
        await admin.add(6, prefix=f"round{round_}_")
        before = await results(server.database)
        victim = await server.volunteer(f"victim{round_}")
        bucket = await victim.bucket()
        for item in ids(bucket)[:3]:
            victim.send("submit", **submission(bucket, items=[item], final=False))
            await victim._writer
        victim.cut()
        again = await waiting.bucket()
        stored = await waiting.submit(again)
        assert stored["type"] == "stored", stored
        assert ids(again) == ids(bucket)[3:]
        assert await results(server.database) == before + 6


async def test_a_peer_that_reads_slowly_and_answers_pings_is_not_gone(start_server: StartServer) -> None:
    server = await start_server(ping_interval=0.5, ping_timeout=1.0, messages_per_minute=1_000_000)
    slow = await RawPeer.open(server, receive_buffer=4096)
    await slow.hello("slow")
    (session,) = server.node.parts.sessions.clients
    for _ in range(1500):
        slow.say("services")

    answered = 0
    while answered < 200:  # it takes some seconds, in which its pongs stand behind requests that nobody reads
        opcode, _ = await slow.read()
        answered += opcode == TEXT
        if opcode == PING or answered % 20 == 0:
            slow.frame(b"", opcode=PONG)
        await asyncio.sleep(0.02)
    assert session.alive
