"""The stats channel tells the truth: by page, after a restart, on every node, and as SQL does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.stats import boards
from coordinator.store.pool import Database
from coordinator.wire import stats as wire
from tests.conftest import StartServer
from tests.harness import Message, Server, Viewer
from tests.serve.tools import configure, eventually, value


async def pages(viewer: Viewer, topic: str, limit: int = 2, **which: Any) -> list[Message]:
    """Return all rows of a table, read by pages and checked against their type."""
    rows: list[Message] = []
    after = None
    while True:
        page = await viewer.ok("get", topic=topic, filter=which or None, limit=limit, after=after)
        assert set(page) == {"type", "ref", "topic", "rows", "next"}
        assert len(page["rows"]) <= limit
        if topic in wire.ROWS:
            kind: Any = wire.ROWS[topic]
            assert msgspec.to_builtins([msgspec.convert(row, kind) for row in page["rows"]]) == page["rows"]
        rows += page["rows"]
        after = page["next"]
        if after is None:
            return rows


async def settle(server: Server, name: str, buckets: int) -> None:
    """A client that settles so many buckets of dm_check."""
    peer = await server.volunteer(name)
    for _ in range(buckets):
        await peer.submit(await peer.bucket())


async def recorded(server: Server) -> None:
    """Write the counters now, not at the end of the second."""
    await server.node.parts.statistics.recorder.write()


@pytest.fixture
async def busy(start_server: StartServer, database: Database) -> Server:
    """A node on which three clients have settled buckets of three, and one of them holds two."""
    await configure(database, bucket_size=3)
    server = await start_server()
    admin = await server.admin()
    await admin.add(30, services=["dm_check"])
    for name, buckets in (("ada", 1), ("bob", 3), ("cleo", 2)):
        await settle(server, name, buckets)
    holder = await server.volunteer("dan")
    for _ in range(2):
        await holder.bucket()
    await recorded(server)
    return server


async def test_tables_page_by_page(busy: Server) -> None:
    viewer = await busy.viewer()
    assert [row["client_id"] for row in await pages(viewer, "clients")] == ["ada", "bob", "cleo", "dan"]
    by_items = await pages(viewer, "clients", sort="settled")
    assert [(row["client_id"], row["settled"]) for row in by_items] == [("bob", 9), ("cleo", 6), ("ada", 3), ("dan", 0)]
    assert (await pages(viewer, "clients", sort="held"))[0]["held"] == 2
    upwards = [row["client_id"] for row in await pages(viewer, "clients", sort="settled", order="asc")]
    assert upwards == ["dan", "ada", "cleo", "bob"]
    backwards = [row["client_id"] for row in await pages(viewer, "clients", sort="client_id", order="desc")]
    assert backwards == ["dan", "cleo", "bob", "ada"]
    assert len(await pages(viewer, "clients", sort="connected", connected=True)) == 4
    assert await pages(viewer, "clients", connected=False) == []
    counted = await viewer.ok("get", topic="clients", filter={"search": "a"}, limit=1, count=True)
    assert (len(counted["rows"]), counted["total"]) == (1, 2)
    assert await viewer.refused("get", topic="buckets", count=True) == "bad_message"
    assert [row["client_id"] for row in await pages(viewer, "clients", search="LE")] == ["cleo"]
    assert await pages(viewer, "clients", service="follower_check") == []
    assert await pages(viewer, "clients", state="deactivated", health="ok", service="dm_check") == []
    open_ones = await pages(viewer, "buckets")
    states = [row["state"] for row in open_ones]
    assert states[:2] == ["claimed", "claimed"]
    assert set(states[2:]) == {"ready"}
    assert len({row["bucket_id"] for row in open_ones}) == len(open_ones)
    assert len(await pages(viewer, "buckets", limit=1, client_id="dan")) == 2
    assert len(await pages(viewer, "buckets", state="ready", service="dm_check")) == len(states) - 2
    results = await pages(viewer, "results", limit=5, service="dm_check")
    assert len(results) == len({row["item"] for row in results}) == 18
    assert {row["client_id"] for row in await pages(viewer, "results", service="dm_check", client_id="bob")} == {"bob"}
    assert len(await pages(viewer, "services", limit=1)) == 3
    assert [row["service"] for row in await pages(viewer, "services", service="dm_check")] == ["dm_check"]
    assert [row["state"] for row in await pages(viewer, "nodes")] == ["live"]
    events = await pages(viewer, "events")
    for kind in ("connect", "register"):
        assert {row["client_id"] for row in events if row["kind"] == kind} == {"ada", "bob", "cleo", "dan"}
    assert [row["kind"] for row in await pages(viewer, "events", client_id="ada")] == ["register", "connect"]
    leaders = await pages(viewer, "leaderboard", limit=1)
    assert [(row["place"], row["client_id"]) for row in leaders] == [(1, "bob"), (2, "cleo"), (3, "ada")]
    for span in ("week", "month", "all"):
        assert await pages(viewer, "leaderboard", span=span) == leaders
    assert await pages(viewer, "leaderboard", service="follower_check", span="week") == []
    standing = await pages(viewer, "standing", limit=4, client_id="ada")
    assert [row.pop("span") for row in standing] == ["day", "week", "month", "all"]
    assert standing == [{"place": 3, "volunteers": 3, "settled": 3, "total": 18}] * 4
    assert {row["place"] for row in await pages(viewer, "standing", client_id="dan")} == {None}
    assert await viewer.refused("get", topic="standing") == "bad_message"
    for step in ("minute", "hour"):
        history = await pages(viewer, "history", limit=1, step=step, service="dm_check")
        assert sum(row["settled"] for row in history) == 18
        assert sum(row["buckets"] for row in history) == 6
    assert await pages(viewer, "history", until="2026-01-01T00:00:00Z") == []


async def test_all_places_of_a_client_are_of_one_moment(busy: Server) -> None:
    """On a first day the board of the day was of one moment, and that of the week of a later one."""
    viewer = await busy.viewer()
    await pages(viewer, "leaderboard", span="day")
    await settle(busy, "ada", 2)
    await recorded(busy)
    standing = await pages(viewer, "standing", limit=4, client_id="cleo")
    assert len({(row["place"], row["settled"]) for row in standing}) == 1


async def test_places_behind_those_that_are_kept_are_read_one_by_one(
    busy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await busy.viewer()
    whole = await pages(viewer, "leaderboard", span="month")
    monkeypatch.setattr(boards, "LEADERS_KEPT", 1)
    for limit in (1, 2, 3, 4):
        assert await pages(viewer, "leaderboard", span="week", limit=limit) == whole
    assert await viewer.refused("get", topic="leaderboard", after="7|ada|1|2|3") == "bad_message"
    assert await viewer.refused("get", topic="leaderboard", after="ada") == "bad_message"


async def test_each_figure_has_one_meaning(busy: Server, database: Database) -> None:
    """The overview, the tables, the admin channel and SQL agree."""
    viewer, admin = await busy.viewer(), await busy.admin()
    await viewer.ok("subscribe", topics=["overview"])
    overview = (await viewer.snapshot("overview"))["data"]
    (service,) = await pages(viewer, "services", service="dm_check")
    told = (await admin.ok("service.show", service="dm_check"))["counts"]
    by_sql = await value(database, "SELECT count(*) FROM result")
    history = sum(row["settled"] for row in await pages(viewer, "history"))
    clients = sum(row["settled"] for row in await pages(viewer, "clients"))
    found = {overview["items"]["settled"], service["items"]["settled"], told["settled"], by_sql, history, clients}
    assert found == {18}
    assert overview["items"] == service["items"]
    assert overview["items"]["total"] == 30 == sum(v for k, v in overview["items"].items() if k != "total")
    assert overview["buckets"] == service["buckets"]
    assert overview["clients"]["connected"] == 4
    assert overview["clients"]["registered"] == await value(database, "SELECT count(*) FROM client")


async def test_losses_are_counted_once_by_client_and_history(busy: Server) -> None:
    peer = await busy.volunteer("eve")
    given = await peer.bucket()
    await peer.ok("release", bucket_id=given["bucket_id"], claim=given["claim"])
    empty = await peer.bucket()
    await peer.submit(empty, items=[])  # final, with nothing in it: given back
    fay = await busy.volunteer("fay")
    bad = await fay.bucket()
    which = {"bucket_id": bad["bucket_id"], "claim": bad["claim"]}
    assert await fay.refused("submit", **which, results=[{"item": 0}], final=True) in ("bad_result", "unassigned_items")
    holder = await busy.volunteer("gil")
    await holder.bucket()
    holder.cut()
    viewer = await busy.viewer()

    async def cut_off() -> bool:
        return busy.node.events.counts["disconnect"] == 1

    await eventually(cut_off, "the end of the one that was cut is noticed")
    await recorded(busy)
    (history,) = await pages(viewer, "history", service="dm_check", step="hour")
    clients = await pages(viewer, "clients")
    for name, expected in (("given_back", 2), ("disconnects", 1), ("bad_submits", 1), ("dead", 0)):
        assert sum(one[name] for row in clients for one in row["services"]) == history[name] == expected, name


async def test_a_restart_loses_nothing(dsn: str, start_server: StartServer, tmp_path: Any, database: Database) -> None:
    await configure(database, bucket_size=3)
    settings = Settings(port=0, ops_port=0, data=tmp_path, node_name="again")
    async with Node(settings, dsn=dsn) as node:
        server = Server(node, database, (await start_server(node_name="other")).stack)
        await (await server.admin()).add(9, services=["dm_check"])
        await settle(server, "ada", 3)
    second = await start_server(node_name="again")
    viewer = await second.viewer()
    assert sum(row["settled"] for row in await pages(viewer, "history")) == 9
    assert [(row["client_id"], row["settled"]) for row in await pages(viewer, "leaderboard")] == [("ada", 9)]
    assert "register" in [row["kind"] for row in await pages(viewer, "events")]
    await viewer.ok("subscribe", topics=["overview"])

    async def recent() -> bool:
        return bool(sum((await viewer.snapshot("overview"))["data"]["recent"]) == 9)

    await eventually(recent, "the chart goes on where it was")


async def test_every_node_tells_of_all(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=3)
    first = await start_server(node_name="first", node_lease=1.5)
    second = await start_server(node_name="second", node_lease=1.5)
    await (await first.admin()).add(9, services=["dm_check"])
    await settle(first, "ada", 2)
    await settle(second, "bob", 1)
    waiting = await second.volunteer("cleo")
    await waiting.ok("ask", service="dm_check", count=4)
    for server in (first, second):
        await recorded(server)
    for server in (first, second):
        viewer = await server.viewer()
        await viewer.ok("subscribe", topics=["overview", "nodes"], interval=0.25)

        async def all_of_it(viewer: Viewer = viewer) -> bool:
            data = (await viewer.snapshot("overview"))["data"]
            assert data["items"]["settled"] == 9
            return bool((sum(data["recent"]), data["demand"]["pending"], data["nodes"]) == (9, 4, 2))

        await eventually(all_of_it, "work and demand of both")
        assert sum(row["settled"] for row in await pages(viewer, "history")) == 9
        assert {row["node"] for row in await pages(viewer, "nodes")} == {"first", "second"}


async def test_a_node_tells_its_load(start_server: StartServer) -> None:
    server = await start_server(node_lease=1.5)
    await server.volunteer("ada")
    viewer = await server.viewer()

    async def told() -> bool:
        (row,) = (await viewer.ok("get", topic="nodes"))["rows"]
        return bool(row["sessions"] == 1 and row["memory"] > 10_000_000 and row["cpu"] > 0)

    await eventually(told, "with the next renewal of its lease")


async def test_equal_pages_are_looked_up_once(server: Server) -> None:
    viewer = await server.viewer()
    load = server.node.parts.core.database.load

    def looks() -> int:
        return sum(one.calls for one in load.snapshot().statements if one.statement == "people.by_value")

    for _ in range(20):
        await viewer.ok("get", topic="clients", filter={"sort": "settled"})
    assert looks() < 10
    await viewer.ok("get", topic="clients", filter={"sort": "dead"})
    assert looks() < 11
