"""Why nothing comes: told by the answer to an ask, and by a push whenever it changes."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from coordinator.flow import wait_teller, wait_view
from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import PATIENCE, Admin, Message, Server, Volunteer
from tests.serve.tools import configure, eventually, execute, join_again, no_push, report, set_state, value


@pytest.fixture(autouse=True)
def told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_teller, "TELL_INTERVAL", 0.02)


async def ask(peer: Volunteer, count: int = 1, **more: object) -> Message:
    return await peer.ok("ask", service="dm_check", count=count, **more)


async def why(peer: Volunteer, count: int = 1) -> str | None:
    """Ask; returns the reason that the answer tells."""
    waiting = (await ask(peer, count))["waiting"]
    return None if waiting is None else str(waiting["reason"])


async def told(peer: Volunteer) -> Message:
    """The next push that tells why nothing comes."""
    push = await within(peer.waits.get(), PATIENCE)
    assert (push["type"], push["service"], bool(push["text"])) == ("waiting", "dm_check", True)
    return push


def said(peer: Volunteer) -> list[str]:
    """The reasons that were told and not read yet, but for the moment in which a bucket was being made."""
    pushes = [peer.waits.get_nowait() for _ in range(peer.waits.qsize())]
    return [push["reason"] for push in pushes if push["reason"] != "making"]


async def release(peer: Volunteer, bucket: Message) -> None:
    await peer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])


async def seconds_until(database: Database, waiting: Message) -> float:
    """From now, by the clock of the database."""
    now = await value(database, "SELECT now()")
    return float((datetime.fromisoformat(waiting["until"]) - now).total_seconds())


async def test_nothing_is_told_while_all_is_at_hand_and_the_reason_if_not(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    assert await why(client) == "no_items"
    await admin.add(4)
    await client.push("bucket")

    asked = await ask(client, 2)
    assert (asked["count"], asked["pending"], asked["waiting"]) == (2, 2, None)
    assert [(await client.push("bucket"))["type"] for _ in range(2)]

    asked = await ask(client, 3)  # one is there
    assert (asked["count"], asked["pending"], asked["waiting"]["reason"]) == (3, 3, "no_items")
    assert asked["waiting"]["until"] is None
    await client.push("bucket")
    await no_push(client)
    asked = await ask(client, 0)
    assert (asked["pending"], asked["waiting"]) == (0, None)
    assert not said(client)


async def test_others_may_hold_all_there_is(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(3)
    await volunteer.bucket()
    assert await why(await server.volunteer("other")) == "no_items"


async def test_a_count_of_nought_tells_too(volunteer: Volunteer) -> None:
    await ask(volunteer, 10)
    await ask(volunteer, 10)
    asked = await ask(volunteer)
    assert (asked["count"], asked["pending"], asked["waiting"]["reason"]) == (0, 20, "no_items")


async def test_an_ask_that_does_not_wait_tells_of_those_that_do(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await set_state(server, "paused")
    await volunteer.push("service")
    assert await why(volunteer) == "paused"
    assert await volunteer.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    await set_state(server, "active")
    await volunteer.push("service")
    await admin.add(1)
    await volunteer.push("bucket")


async def test_a_pause_is_told_to_who_waits_and_its_end_by_what_is_true_then(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    assert await why(volunteer) == "no_items"
    await set_state(server, "paused")
    assert (await told(volunteer))["reason"] == "paused"
    await admin.add(1, services=["dm_check"])
    await set_state(server, "active")
    for kind in ("service", "service", "bucket"):
        await volunteer.push(kind)
    assert await why(volunteer) == "no_items"
    assert not said(volunteer), "a push that ends the wait is not followed by another word"


async def test_its_own_report(server: Server, admin: Admin, volunteer: Volunteer, database: Database) -> None:
    assert await why(volunteer) == "no_items"
    await report(volunteer, retry_after=40)
    push = await told(volunteer)
    assert push["reason"] == "reported"
    assert await seconds_until(database, push) == pytest.approx(40, abs=5)
    await admin.add(1)
    waiting = (await ask(volunteer))["waiting"]
    assert (waiting["reason"], waiting["until"]) == ("reported", push["until"])
    await report(volunteer, retry_after=0)
    await volunteer.push("bucket")


async def test_give_backs(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, picky = await server.admin(), await server.volunteer("picky")
    await admin.add(9)
    for _ in range(2):
        await release(picky, await picky.bucket())
    await execute(database, "UPDATE membership SET wait_until = now() + interval '20 s'")
    waiting = (await ask(picky))["waiting"]
    assert (waiting["reason"], waiting["text"]) == ("backing_off", "it gave back 2 buckets in a row")
    assert await seconds_until(database, waiting) == pytest.approx(20, abs=5)


async def test_a_limit_and_that_of_newcomers(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1, max_held_buckets=2, newcomer_buckets=1)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(9)
    bucket = await client.bucket()
    assert await why(client) == "newcomer"
    await client.submit(bucket)
    await client.push("bucket")
    await execute(database, "UPDATE membership SET settled = 100")
    assert await why(client, 2) == "at_limit"
    await client.push("bucket")
    assert (await ask(client, 0))["waiting"] is None


async def test_only_what_it_gave_back(server: Server, admin: Admin, volunteer: Volunteer, database: Database) -> None:
    await admin.add(3)
    await release(volunteer, await volunteer.bucket())
    waiting = (await ask(volunteer))["waiting"]
    assert waiting["reason"] == "returned_all"
    assert await seconds_until(database, waiting) == pytest.approx(30, abs=5)
    await (await server.volunteer("other")).bucket()
    assert (await told(volunteer))["reason"] == "no_items"


async def test_what_is_to_be_cut_up(server: Server, admin: Admin, volunteer: Volunteer, database: Database) -> None:
    await admin.add(3)
    other = await server.volunteer("other")
    bucket = await other.bucket()
    await release(other, bucket)
    await execute(database, "UPDATE bucket SET split_at = now() + interval '30 s'")
    waiting = (await ask(volunteer))["waiting"]
    assert waiting["reason"] == "making"
    assert await seconds_until(database, waiting) == pytest.approx(30, abs=5)


async def test_the_end_of_the_node(server: Server, volunteer: Volunteer) -> None:
    assert await why(volunteer) == "no_items"
    draining = asyncio.create_task(server.node.drain())
    await volunteer.push("drain")
    assert (await told(volunteer))["reason"] == "draining"
    await draining


async def test_a_deactivation_drops_what_is_outstanding(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    assert await why(volunteer) == "no_items"
    await admin.ok("client.deactivate", client_id="volunteer", service="dm_check")
    assert (await told(volunteer))["reason"] == "deactivated"
    await admin.ok("client.activate", client_id="volunteer", service="dm_check")
    asked = await ask(volunteer)
    assert asked["pending"] == 1


async def test_a_revoked_service_ends_the_wait(server: Server, volunteer: Volunteer) -> None:
    await ask(volunteer)
    await set_state(server, "revoked")
    await volunteer.push("service")
    assert (await told(volunteer))["reason"] == "served"


async def test_leaving_ends_the_wait_of_the_other_session_and_says_nothing_to_the_one_that_left(
    server: Server, volunteer: Volunteer
) -> None:
    twin, _ = await join_again(server, "volunteer")
    await ask(volunteer)
    await ask(twin)
    await volunteer.ok("leave", service="dm_check")
    assert (await told(twin))["reason"] == "served"
    await asyncio.sleep(0.1)
    assert not said(volunteer)


async def test_it_is_told_at_most_once_a_second(
    server: Server, volunteer: Volunteer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_teller, "TELL_INTERVAL", 0.5)
    await ask(volunteer)
    loop = asyncio.get_running_loop()
    await set_state(server, "paused")
    await told(volunteer)
    begun = loop.time()
    for state in ("active", "paused", "active"):
        await set_state(server, state)
    assert (await told(volunteer))["reason"] == "no_items"
    assert loop.time() - begun > 0.4
    assert not said(volunteer)


async def waiting_of(server: Server, client: str) -> list[Message | None]:
    """Why it waits, as `client.show`, `client.list` and the statistics have it."""
    admin, viewer = await server.admin(), await server.viewer()
    shown = await admin.ok("client.show", client_id=client)
    listed = next(row for row in (await admin.ok("client.list"))["rows"] if row["client_id"] == client)
    page = await viewer.ok("get", topic="clients", filter={"client_id": client})
    return [row["services"][0]["waiting"] for row in (shown, listed, *page["rows"])]


async def see(server: Server, client: str, waiting: Message | None) -> None:
    """Wait until all of them have that: a page of the statistics is kept for a moment."""

    async def seen() -> bool:
        return await waiting_of(server, client) == [waiting] * 3

    await eventually(seen, f"not seen: {waiting}")


async def test_admins_and_onlookers_see_the_same(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await see(server, "volunteer", None)
    asked = await ask(volunteer)
    assert asked["waiting"]["reason"] == "no_items"
    await see(server, "volunteer", asked["waiting"])
    await report(volunteer, retry_after=40)
    push = await told(volunteer)
    await see(server, "volunteer", {name: push[name] for name in ("reason", "text", "until")})


async def test_another_node_knows_it_too(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_view, "NOTE_INTERVAL", 0.05)
    here, elsewhere = await start_server(node_name="here"), await start_server(node_name="elsewhere")
    client = await elsewhere.volunteer("client")
    for server in (here, elsewhere):
        server.node.parts.core.signals.alone = False
    asked = await ask(client)
    await see(here, "client", asked["waiting"])
    await ask(client, 0)
    await see(here, "client", None)
