"""Viewers that ask for pages without end: others go on reading, and the work goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from coordinator.stats import tables
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Server, Viewer
from tests.serve.tools import configure, eventually


async def viewer_from(server: Server, address: str, **hello: str) -> Viewer:
    """A viewer whose connection a proxy has passed on from that address."""
    headers = {"X-Forwarded-For": address}
    viewer = await Viewer.open(f"{server.url}/v1/stats", server.stack, additional_headers=headers)
    await viewer.ok("hello", protocol=1, **hello)
    return viewer


@pytest.fixture
async def behind_proxy(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A node behind a proxy, with a short deadline of pages."""
    monkeypatch.setattr(tables, "PAGE_DEADLINE", 0.1)
    return await start_server(trusted_proxies=("127.0.0.1",), viewers="open")


async def test_many_viewers_of_one_address_whose_pages_are_slow_take_no_turn_from_others(
    behind_proxy: Server, database: Database
) -> None:
    server = behind_proxy
    greedy = [await viewer_from(server, "203.0.113.66") for _ in range(20)]
    other = await viewer_from(server, "203.0.113.7")
    operator = await viewer_from(server, "203.0.113.66", token=await server.token("operator"))

    async with database.transaction() as db:
        await db.execute("LOCK TABLE membership")  # so that no list of clients is found in time
        answers = [
            viewer.send("get", topic="clients", filter={"search": f"a{number}"}, count=True)
            for number, viewer in enumerate(greedy)
        ]
        for viewer in (other, operator):
            for state in ("live", "draining"):
                await viewer.ok("get", topic="nodes", filter={"state": state})
        assert sum(answer.done() for answer in answers) <= 5
        for answer in answers:
            answer.cancel()
        for viewer in greedy:
            viewer.cut()


async def test_a_page_that_is_too_slow_says_so_and_the_database_is_not_held_for_away(
    behind_proxy: Server, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await viewer_from(behind_proxy, "203.0.113.7")
    node_database = behind_proxy.node.parts.core.database
    failed_at = node_database.failed_at
    async with database.transaction() as db:
        await db.execute("LOCK TABLE membership")
        for _ in range(2):  # the second time within its pause
            answer = await viewer.ask_for("get", topic="clients")
            assert answer["code"] == "unavailable"
            assert "narrower filter" in answer["message"]
    assert node_database.trouble is None
    assert node_database.failed_at == failed_at
    assert (await viewer.ok("get", topic="clients", limit=1))["rows"] == []


async def test_long_pages_are_sent_in_turns_though_their_answer_is_kept(
    behind_proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SMALL_PAGE", 0)
    monkeypatch.setattr(tables, "SENT_A_SECOND", 1)
    greedy, other = await viewer_from(behind_proxy, "203.0.113.66"), await viewer_from(behind_proxy, "203.0.113.7")
    assert len((await greedy.ok("get", topic="nodes"))["rows"]) == 1
    again = greedy.send("get", topic="nodes")
    assert len((await other.ok("get", topic="nodes"))["rows"]) == 1
    assert not again.done()
    again.cancel()
    greedy.cut()
    await eventually(nobody_waits(behind_proxy), "whoever has gone waits for a turn")


def nobody_waits(server: Server) -> Callable[[], Awaitable[bool]]:
    """Whether no query of a page waits for its turn."""

    async def look() -> bool:
        return not any(server.node.parts.statistics.table_pages._turns._waiting.values())

    return look


async def test_pages_that_are_kept_are_few_in_bytes_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BYTES_KEPT", 100)
    viewer = await server.viewer()
    for limit in range(1, 10):
        await viewer.ok("get", topic="nodes", limit=limit)
    assert len(server.node.parts.statistics.table_pages._kept) <= 2


async def test_admins_that_list_without_end_leave_connections_to_the_work(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=3)
    server = await start_server()
    admin = await server.admin()
    await admin.add(9)
    volunteer = await server.volunteer("ada")
    async with database.transaction() as db:
        await db.execute("LOCK TABLE notice")
        listing = [await server.admin() for _ in range(12)]
        answers = [peer.send("notice.list") for peer in listing]
        behind = listing[0].send("client.list")
        for _ in range(3):
            await volunteer.submit(await volunteer.bucket())
        assert not any(answer.done() for answer in answers)

        listing[0].cut()
        admins = server.node.parts.sessions.admins
        there = len(admins)
    for answer in answers[1:]:
        assert (await answer)["rows"] == []

    async def gone() -> bool:
        return len(admins) < there

    await eventually(gone, "the session of a peer that has gone")
    statements = server.node.parts.core.database.load.snapshot().statements
    assert not [row for row in statements if row.statement == "clients.page"]  # what was asked behind it is left
    answers[0].cancel()
    behind.cancel()


async def test_the_words_of_a_deactivation_are_told_to_operators_alone(server: Server) -> None:
    admin, onlooker = await server.admin(), await server.viewer()
    operator = await server.viewer(token=await server.token("operator"))
    await server.volunteer("ada")
    await admin.ok("client.deactivate", client_id="ada", service="dm_check", reason="she lies")
    await admin.ok("client.deactivate", client_id="ada", reason="she steals")

    for viewer, whole, here in ((onlooker, "by an admin", "by an admin"), (operator, "she steals", "she lies")):
        (row,) = (await viewer.ok("get", topic="clients"))["rows"]
        assert (row["state"], row["deactivated"]) == ("deactivated", whole)
        assert (row["services"][0]["inactive"], row["services"][0]["inactive_reason"]) == ("admin", here)
        await viewer.ok("subscribe", topics=["clients"])
        (row,) = (await viewer.snapshot("clients"))["data"]["rows"]
        assert (row["deactivated"], row["services"][0]["inactive_reason"]) == ("by an admin", "by an admin")
        await viewer.ok("subscribe", topics=["events"])
        assert "she" not in str((await viewer.snapshot("events"))["data"])
