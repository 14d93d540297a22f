"""Two nodes on one database: what one does, the clients of the other see."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from time import monotonic, perf_counter

import pytest

from coordinator.flow import dispatcher, grant, longest_waits
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Message, Volunteer, secret_of
from tests.serve.tools import configure, eventually, join_again, no_push, results

pytestmark = pytest.mark.measured


def hold(bucket: Message) -> dict[str, object]:
    return {"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}


async def test_items_added_at_one_node_reach_a_client_of_the_other_soon(start_server: StartServer) -> None:
    first = await start_server(node_name="first")
    admin = await first.admin()
    second = await start_server(node_name="second")  # the first one has only just got company
    client = await second.volunteer("client")
    for round_ in range(3):
        await client.ok("ask", service="dm_check", count=1)
        await admin.add(1, prefix=f"round{round_}_")
        begun = perf_counter()
        bucket = await client.push("bucket")
        assert perf_counter() - begun < 0.7, round_
        assert (await client.submit(bucket))["closed"] is True


async def test_what_is_held_at_another_node_counts_against_the_limit(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1, max_held_buckets=2)
    first = await start_server(node_name="first")
    admin, here = await first.admin(), await first.volunteer("client")
    second = await start_server(node_name="second")
    there, _ = await join_again(second, "client")
    await admin.add(6)
    for _ in range(2):
        last = await there.bucket()
    assert (await here.ok("ask", service="dm_check", count=1))["count"] == 1
    assert await there.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    await no_push(here)
    begun = perf_counter()
    await there.submit(last)
    await here.push("bucket")
    assert perf_counter() - begun < 2


async def test_a_session_at_one_node_submits_and_takes_over_what_another_holds(start_server: StartServer) -> None:
    first, second = await start_server(node_name="first"), await start_server(node_name="second")
    admin, here = await first.admin(), await first.volunteer("client")
    there, _ = await join_again(second, "client")
    await admin.add(4)
    bucket = await here.bucket()
    part = await there.submit(bucket, items=[bucket["items"][0]["item"]], final=False)
    assert (part["stored"], part["remaining"]) == (1, 3)
    recollected = await there.ok("recollect", holds=[hold(bucket)])
    assert recollected["regranted"] == [bucket["bucket_id"]]
    back = await there.push("bucket")
    assert len(back["items"]) == 3
    lost = await here.push("bucket_lost")
    assert (lost["bucket_id"], lost["claim"], lost["reason"]) == (bucket["bucket_id"], bucket["claim"], "released")
    await here.close()
    await no_push(there)
    assert (await there.submit(back))["closed"] is True
    assert await results(first.database) == 4


async def test_unregister_at_one_node_takes_the_buckets_at_the_other(start_server: StartServer) -> None:
    first, second = await start_server(node_name="first"), await start_server(node_name="second")
    admin, here = await first.admin(), await first.volunteer("client")
    there, _ = await join_again(second, "client")
    await admin.add(4)
    bucket = await here.bucket()
    assert (await there.ok("unregister"))["released"] == 1
    assert (await here.push("bucket_lost"))["bucket_id"] == bucket["bucket_id"]
    assert (await here.submit(bucket))["code"] == "not_registered"
    assert await results(first.database) == 0
    other = await first.volunteer("other")
    assert (await other.bucket())["attempt"] == 1


async def test_a_disconnect_at_one_node_serves_a_client_of_the_other(start_server: StartServer) -> None:
    first, second = await start_server(node_name="first"), await start_server(node_name="second")
    admin, holder, waiting = await first.admin(), await first.volunteer("holder"), await second.volunteer("waiting")
    await admin.add(4)
    bucket = await holder.bucket()
    await waiting.ok("ask", service="dm_check", count=1)
    begun = perf_counter()
    holder.cut()
    again = await waiting.push("bucket")
    assert perf_counter() - begun < 0.7
    assert (again["bucket_id"], again["attempt"]) == (bucket["bucket_id"], 2)


async def test_a_client_that_has_waited_longer_goes_first_whatever_its_node(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that came went to the clients of the node that knew of it first."""
    monkeypatch.setattr(longest_waits, "LONG_WAIT", 0.2)
    monkeypatch.setattr(grant, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(dispatcher, "GIVE_WAY_FOR", 2.0)
    first, second = await start_server(node_name="first"), await start_server(node_name="second")
    admin, here, there = await first.admin(), await first.volunteer("here"), await second.volunteer("there")
    service = first.node.parts.core.catalogue.get("dm_check").service.service_id
    waits = first.node.parts.core.longest_waits

    async def waits_longer_there() -> bool:
        return waits.goes_first_elsewhere(service, monotonic(), monotonic())

    async def nobody_waits_there() -> bool:
        return not await waits_longer_there()

    await there.ok("ask", service="dm_check", count=1)
    await eventually(waits_longer_there, "the first node knows that a client waits at the second")
    await here.ok("ask", service="dm_check", count=1)
    await admin.add(1, prefix="one_", services=["dm_check"])
    await there.push("bucket")
    assert here.pushes.empty()

    await eventually(nobody_waits_there, "the first node knows that it waits no more")
    await admin.add(1, prefix="two_", services=["dm_check"])
    await here.push("bucket")


async def test_what_the_clients_of_a_crashed_node_held_is_free_and_may_come_back(
    start_server: StartServer, dsn: str, tmp_path: Path
) -> None:
    second = await start_server(node_name="second")
    admin = await second.admin()
    await admin.add(360)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coordinator", "serve", "--database", dsn, "--data", str(tmp_path / "crashing")),
        *("--port", "0", "--ops-port", "0", "--node-name", "crashing", "--node-lease", "2"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said: list[bytes] = []
    port = 0
    async with asyncio.timeout(20):
        while not port and (line := await process.stdout.readline()):
            said.append(line)
            if line.startswith(b"{"):
                port = json.loads(line).get("port", 0)
    assert port, said
    clients = []
    for name in ("returning", "lost"):
        client = await Volunteer.open(f"ws://127.0.0.1:{port}/v1/client", second.stack)
        await client.ok("hello", protocol=1, client_id=name, secret=secret_of(name))
        await client.ok("register", screen_name=name, services=[{"service": "dm_check", "profile": {"source": "a"}}])
        clients.append(client)
    kept, gone = [await client.bucket() for client in clients]
    process.send_signal(signal.SIGKILL)
    await process.wait()
    back, welcome = await join_again(second, "returning", holds=[hold(kept)])
    assert welcome["recollected"]["regranted"] == [kept["bucket_id"]]
    again = await back.push("bucket")
    assert again["attempt"] == 1
    waiting = await second.volunteer("waiting")
    await waiting.ok("ask", service="dm_check", count=1)
    taken = await waiting.push("bucket")  # once the lease has run out
    assert (taken["bucket_id"], taken["attempt"]) == (gone["bucket_id"], 1)
    _, welcome = await join_again(second, "lost", holds=[hold(gone)])
    assert welcome["recollected"] == {"regranted": [], "dropped": [gone["bucket_id"]]}
    assert (await back.submit(again))["closed"] is True
