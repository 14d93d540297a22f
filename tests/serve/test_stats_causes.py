"""The stats channel tells why: what is asked for and does not come, what an event is worth, how a node ended."""

from __future__ import annotations

import asyncio

from coordinator.model import ServiceId
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Message, Server, Viewer
from tests.serve.test_stats_tables import pages, recorded, settle
from tests.serve.tools import configure, eventually, execute, report, set_state, value


async def overview(viewer: Viewer) -> Message:
    """A snapshot of the overview, as it is now."""
    await viewer.ok("unsubscribe", topics=["overview"])
    await viewer.ok("subscribe", topics=["overview"])
    data: Message = (await viewer.snapshot("overview"))["data"]
    return data


async def test_what_is_asked_for_is_counted_by_why_it_does_not_come(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=3, max_held_buckets=1)
    server = await start_server()
    await (await server.admin()).add(3, services=["dm_check"])
    viewer = await server.viewer()
    holder, waiter = await server.volunteer("ada"), await server.volunteer("bob")
    await holder.bucket()
    await holder.ok("ask", service="dm_check", count=1)
    await waiter.ok("ask", service="dm_check", count=1)

    async def told() -> bool:
        demand = (await overview(viewer))["demand"]
        return (demand["pending"], demand["reasons"]) == (2, {"at_limit": 1, "no_items": 1})

    await eventually(told, "one holds what it may, and for the other there is nothing")
    await set_state(server, "paused")

    async def paused() -> bool:
        (row,) = await pages(viewer, "services", service="dm_check")
        return bool(row["demand"]["reasons"] == {"paused": 2})

    await eventually(paused, "both wait for the service")


async def test_the_last_seconds_are_told_by_service(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=3)
    server = await start_server()
    await (await server.admin()).add(6, services=["dm_check"])
    await settle(server, "ada", 2)
    await recorded(server)
    viewer = await server.viewer()

    async def told() -> bool:
        data = await overview(viewer)
        return bool(sum(data["recent"]) == 6 and data["recent_by_service"] == {"dm_check": data["recent"]})

    await eventually(told, "all that was settled is of one service")


async def test_events_are_chosen_by_severity_by_several_kinds_and_by_time(server: Server) -> None:
    ada = await server.volunteer("ada")
    await report(ada, kind="upstream_limited", retry_after=900)
    await report(ada, kind="upstream_limited", retry_after=600)  # it has said so already
    server.node.events.emit("fault", "something broke")
    await recorded(server)
    viewer = await server.viewer()

    rows = await pages(viewer, "events")
    node = server.node.settings.node_name
    assert {row["node"] for row in rows} == {node}
    serious = await pages(viewer, "events", severity="warning")
    assert [(row["kind"], row["severity"]) for row in serious] == [("fault", "error"), ("limited", "warning")]
    assert serious[1]["client_id"] == "ada"
    assert serious[1]["text"] == "gets nothing for 900 s, as it reported: its API takes no more"
    assert [row["kind"] for row in await pages(viewer, "events", severity="error")] == ["fault"]

    several = await pages(viewer, "events", kind=["limited", "register"], limit=1)
    assert [row["kind"] for row in several] == ["limited", "register"]
    assert await pages(viewer, "events", until=rows[-1]["at"]) == []
    assert await pages(viewer, "events", since=rows[-1]["at"]) == rows
    assert await viewer.refused("get", topic="events", filter={"kind": ["nothing"]}) == "bad_message"


async def test_an_event_is_written_once_by_however_many_at_once(server: Server) -> None:
    recorder = server.node.parts.statistics.recorder
    server.node.events.emit("fault", "something broke")

    await asyncio.gather(*(recorder.write() for _ in range(4)))

    viewer = await server.viewer()
    assert [row["text"] for row in await pages(viewer, "events", kind="fault")] == ["something broke"]


async def test_a_node_that_is_gone_is_told_with_its_end(start_server: StartServer, database: Database) -> None:
    killed = "INSERT INTO node (name, version, lease_until) VALUES ($1, '1', now() - interval '1 minute')"
    await execute(database, killed, "lost")
    await execute(database, "INSERT INTO node (name, version, lease_until) VALUES ('here', '1', now())")
    server = await start_server(node_name="here", node_lease=3)
    viewer = await server.viewer()

    async def gone() -> bool:
        rows = await pages(viewer, "nodes", state="gone")
        return {row["node"]: row["end_reason"] for row in rows if row["ended_at"] is not None} == {
            "lost": "its lease ran out, so it was killed or does not reach the database",
            "here": "it was killed, and has started again",
        }

    await eventually(gone, "one ran out, the other has started again")

    async def told() -> bool:
        texts = [row["text"] for row in await pages(viewer, "events", kind="node", severity="warning")]
        return {text.partition(" is gone: ")[0] for text in texts} == {"here", "lost"}

    await eventually(told, "an event for each")


async def test_the_leaderboard_marks_who_is_flagged(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=3)
    server = await start_server()
    await (await server.admin()).add(6, services=["dm_check"])
    for name in ("ada", "bob"):
        await settle(server, name, 1)
    await recorded(server)
    service = ServiceId(await value(database, "SELECT service_id FROM service WHERE name = 'dm_check'"))
    await execute(
        database,
        "UPDATE membership SET health = 'flagged', health_reason = 'it makes things up'"
        " WHERE client_id = 'bob' AND service_id = $1",
        service,
    )

    viewer = await server.viewer()

    async def marked() -> bool:
        boards = [await pages(viewer, "leaderboard", span=span) for span in ("day", "all")]
        flagged = [[(row["client_id"], row["flagged"]) for row in rows] for rows in boards]
        return flagged == [[("ada", False), ("bob", True)]] * 2

    await eventually(marked, "bob is marked, of today and of all time")
