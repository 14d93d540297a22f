"""The stats channel: roles, refusals, and the times of snapshots."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from coordinator.wire import stats as wire
from coordinator.wire.stats_clients import ClientRow
from tests.conftest import StartServer
from tests.harness import Server, Viewer
from tests.serve.tools import eventually

TOPICS = ["overview", "services", "clients", "buckets", "nodes", "database", "events"]


async def stranger(server: Server, **options: Any) -> Viewer:
    return await Viewer.open(f"{server.url}/v1/stats", server.stack, **options)


async def test_anyone_may_watch_where_viewers_are_open(server: Server) -> None:
    viewer = await stranger(server)
    welcome = await viewer.ok("hello", protocol=1)
    assert (welcome["role"], welcome["protocol"], welcome["topics"]) == ("viewer", 1, TOPICS)
    assert welcome["server"]["node"] == server.node.settings.node_name


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_the_welcome_tells_what_a_token_may_do(server: Server, role: str) -> None:
    viewer = await stranger(server)
    assert (await viewer.ok("hello", protocol=1, token=await server.token(role)))["role"] == role


async def test_viewers_need_a_token_where_it_is_set_so(start_server: StartServer) -> None:
    server = await start_server(viewers="token")
    viewer = await stranger(server)
    assert await viewer.refused("hello", protocol=1) == "unauthorized"
    assert await viewer.close_code() == 4500
    await server.viewer(token=await server.token("viewer"))


@pytest.mark.parametrize("viewers", ["open", "token"])
async def test_tokens_that_open_nothing(start_server: StartServer, viewers: str) -> None:
    server = await start_server(viewers=viewers)
    viewer = await stranger(server)
    assert await viewer.refused("hello", protocol=1, token="no such token") == "unauthorized"
    assert await viewer.close_code() == 4500
    viewer = await stranger(server)
    assert await viewer.refused("hello", protocol=1, token=await server.token("enrolment")) == "forbidden"
    assert await viewer.close_code() == 4501


async def test_hello_is_first_and_once_and_of_this_version(server: Server) -> None:
    viewer = await stranger(server)
    assert await viewer.refused("subscribe", topics=["overview"]) == "out_of_order"
    assert await viewer.refused("get", topic="clients") == "out_of_order"
    await viewer.ok("hello", protocol=1)
    assert await viewer.refused("hello", protocol=1) == "out_of_order"
    other = await stranger(server)
    assert await other.refused("hello", protocol=2) == "unsupported"
    assert await other.close_code() == 4503


async def test_no_hello_in_time(start_server: StartServer) -> None:
    server = await start_server(hello_timeout=0.2)
    assert await (await stranger(server)).close_code() == 4408


async def test_origins(start_server: StartServer) -> None:
    server = await start_server(allowed_origins="https://watch.example")
    for good in (f"http://127.0.0.1:{server.node.port}", "https://watch.example"):
        await (await stranger(server, origin=good)).ok("hello", protocol=1)
    with pytest.raises(InvalidStatus, match="403"):
        await stranger(server, origin="https://elsewhere.example")


@pytest.mark.parametrize(
    ("kind", "fields", "code", "path"),
    [
        ("subscribe", {"topics": ["weather"]}, "bad_message", "$.topics[0]"),
        ("subscribe", {"topics": ["nodes", "weather"]}, "bad_message", "$.topics[1]"),
        ("subscribe", {"topics": []}, "bad_message", "$.topics"),
        ("subscribe", {"topics": "overview"}, "bad_message", "$.topics"),
        ("subscribe", {}, "bad_message", "$.topics"),
        ("subscribe", {"topics": ["overview"], "interval": 0.2}, "bad_message", "$.interval"),
        ("subscribe", {"topics": ["overview"], "interval": 60.1}, "bad_message", "$.interval"),
        ("subscribe", {"topics": ["overview"], "interval": "1"}, "bad_message", "$.interval"),
        ("subscribe", {"topics": ["overview"], "every": 1}, "unsupported", "$.every"),
        ("unsubscribe", {"topics": ["weather"]}, "bad_message", "$.topics[0]"),
        ("unsubscribe", {}, "bad_message", "$.topics"),
        ("get", {}, "bad_message", "$.topic"),
        ("get", {"topic": "overview"}, "bad_message", "$.topic"),
        ("get", {"topic": "clients", "limit": 0}, "bad_message", "$.limit"),
        ("get", {"topic": "clients", "limit": 1001}, "bad_message", "$.limit"),
        ("get", {"topic": "clients", "filter": {"colour": "red"}}, "unsupported", "$.filter.colour"),
        ("get", {"topic": "clients", "filter": {"span": "day"}}, "bad_message", "$.filter.span"),
        ("get", {"topic": "clients", "filter": {"state": "ready"}}, "bad_message", "$.filter.state"),
        ("get", {"topic": "clients", "filter": {"sort": "luck"}}, "bad_message", "$.filter.sort"),
        ("get", {"topic": "history", "filter": {"step": "day"}}, "bad_message", "$.filter.step"),
        ("get", {"topic": "history", "filter": {"since": "soon"}}, "bad_message", "$.filter.since"),
        ("get", {"topic": "results"}, "bad_message", "$.filter.service"),
        ("get", {"topic": "clients", "filter": {"service": "nothing"}}, "not_found", None),
        *(
            ("get", {"topic": topic, "after": "x|y|z", **more}, "bad_message", "$.after")
            for topic, more in [
                ("clients", {}),
                ("buckets", {}),
                ("results", {"filter": {"service": "dm_check"}}),
                ("events", {}),
                ("nodes", {}),
                ("history", {}),
                ("leaderboard", {}),
            ]
        ),
        ("shout", {}, "unsupported", "$.type"),
    ],
)
async def test_what_is_refused(
    start_server: StartServer, kind: str, fields: dict[str, Any], code: str, path: str | None
) -> None:
    viewer = await (await start_server()).viewer()
    answer = await viewer.ask_for(kind, **fields)
    assert (answer["type"], answer["code"]) == ("error", code), answer
    assert path is None or answer["detail"]["path"] == path
    await viewer.ok("get", topic="nodes")  # the session goes on


async def test_every_topic_comes_at_once_and_is_what_its_type_says(server: Server) -> None:
    admin, volunteer = await server.admin(), await server.volunteer("ada")
    await admin.add(3)
    await volunteer.bucket()
    viewer = await server.viewer()
    answer = await viewer.ok("subscribe", topics=TOPICS, interval=60)
    assert (answer["topics"], answer["interval"]) == (TOPICS, 60)
    found = {}
    for _ in TOPICS:
        message = await viewer.push("snapshot")
        assert set(message) == {"type", "topic", "seq", "at", "data"}
        found[message["topic"]] = message["data"]
    assert set(found) == set(TOPICS)
    assert set(found["overview"]) == set(wire.Overview.__struct_fields__)
    for topic, row in [
        ("services", wire.ServiceRow),
        ("clients", ClientRow),
        ("buckets", wire.BucketRow),
        ("nodes", wire.NodeRow),
    ]:
        assert set(found[topic]["rows"][0]) == set(row.__struct_fields__), topic
    assert set(found["database"]) == set(wire.DatabaseLoad.__struct_fields__)
    assert found["database"]["node"] == server.node.settings.node_name
    assert "claims.claim" in {row["statement"] for row in found["database"]["statements"]}
    assert found["overview"]["buckets"] == {"ready": 0, "claimed": 1, "dead": 0}
    assert found["overview"]["items"]["claimed"] == 3
    assert found["buckets"]["rows"][0]["client_id"] == "ada"
    assert found["clients"]["rows"][0]["services"][0]["held"] == 1
    assert found["nodes"]["rows"][0]["node"] == server.node.settings.node_name


async def test_a_snapshot_comes_when_something_has_changed(server: Server) -> None:
    admin = await server.admin()
    viewer = await server.viewer()
    await viewer.ok("subscribe", topics=["services"], interval=0.25)
    first = await viewer.snapshot("services")
    await admin.ok("service.pause", service="dm_check")
    second = await viewer.snapshot("services")
    assert second["seq"] > first["seq"]
    states = {row["service"]: row["state"] for row in second["data"]["rows"]}
    assert states["dm_check"] == "paused"


async def test_subscriptions_add_up_and_end(server: Server) -> None:
    viewer = await server.viewer()
    await viewer.ok("subscribe", topics=["services"], interval=5)
    assert (await viewer.ok("subscribe", topics=["nodes", "services"], interval=0.5))["topics"] == ["services", "nodes"]
    assert (await viewer.ok("unsubscribe", topics=["services"]))["topics"] == ["nodes"]
    feeds = server.node.parts.statistics.feeds.feeds
    assert [topic for topic, feed in feeds.items() if feed._subscriptions] == ["nodes"]
    assert (await viewer.ok("unsubscribe", topics=["nodes", "events"]))["topics"] == []
    await viewer.ok("subscribe", topics=["nodes"])
    await viewer.close()

    async def forgotten() -> bool:
        return not any(feed._subscriptions for feed in feeds.values())

    await eventually(forgotten, "the end of a session ends its subscriptions")


async def test_a_revoked_token_ends_the_session(server: Server) -> None:
    admin = await server.admin()
    issued = await admin.ok("token.issue", role="viewer", label="hall")
    viewer = await server.viewer(token=issued["token"])
    watching = await server.viewer()
    await admin.ok("token.revoke", token_id=issued["token_id"])
    assert await viewer.close_code() == 4502
    await watching.ok("get", topic="nodes")


async def test_a_drain_ends_the_session_with_1012(server: Server) -> None:
    viewer = await server.viewer()
    await server.node.drain()
    assert await viewer.close_code() == 1012
