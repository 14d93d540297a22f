"""The budget of a service, as clients meet it."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.flow import wait_teller
from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import PATIENCE
from tests.serve.tools import configure, eventually, execute, no_push, value


@pytest.fixture(autouse=True)
def told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_teller, "TELL_INTERVAL", 0.02)


async def test_a_bucket_comes_as_soon_as_one_is_free(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1, max_claimed_buckets=2)
    server = await start_server()
    admin, ada, bob = await server.admin(), await server.volunteer("ada"), await server.volunteer("bob")
    await admin.add(5)
    first = await ada.bucket()
    await ada.bucket()
    asked = await bob.ok("ask", service="dm_check", count=1)
    assert (asked["waiting"]["reason"], asked["waiting"]["until"]) == ("budget", None)
    assert "2 buckets" in asked["waiting"]["text"]
    assert await ada.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    row = (await admin.ok("client.show", client_id="bob"))["services"][0]
    assert row["waiting"] == asked["waiting"]

    begun = asyncio.get_running_loop().time()
    assert (await ada.submit(first))["closed"]
    await bob.push("bucket")
    assert asyncio.get_running_loop().time() - begun < 0.9, "it did not wait to be looked at again"


async def test_two_nodes_have_one_budget(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1, max_claimed_buckets=3)
    here, there = await start_server(node_name="here"), await start_server(node_name="there")
    admin, ada, bob = await here.admin(), await here.volunteer("ada"), await there.volunteer("bob")
    await admin.add(9)
    answers = await asyncio.gather(*(peer.ok("ask", service="dm_check", count=5) for peer in (ada, bob)))
    assert [answer["count"] for answer in answers] == [5, 5]

    async def all_out() -> bool:
        return ada.pushes.qsize() + bob.pushes.qsize() >= 3

    await eventually(all_out, "three may be held")
    for peer in (ada, bob):
        await peer.ok("services")
    assert ada.pushes.qsize() + bob.pushes.qsize() == 3
    assert await value(database, "SELECT count(*) FROM bucket WHERE state = 'claimed'") == 3


async def test_the_items_of_a_minute(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=10, items_per_minute=15)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(40)
    asked = await client.ok("ask", service="dm_check", count=3)
    waiting = asked["waiting"]
    while waiting["reason"] == "making":  # on a busy machine, the answer may come before the buckets are made
        waiting = await within(client.waits.get(), PATIENCE)
    assert (waiting["reason"], bool(waiting["until"])) == ("budget", True)
    for _ in range(2):
        await client.push("bucket")
    await no_push(client)
    await execute(database, "UPDATE claim SET begun_at = begun_at - interval '1 minute'")
    await within(client.push("bucket"), PATIENCE)
