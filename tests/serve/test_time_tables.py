"""Kinds of results by the minute, history by the second, and items that wait by their age."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.model import ServiceId
from coordinator.stats import cached_query
from coordinator.stats.time_tables import AGES
from coordinator.store import history, statistics
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Message, Server
from tests.serve.test_stats_tables import pages, recorded
from tests.serve.tools import configure, execute, value


@pytest.fixture
async def server(start_server: StartServer, database: Database) -> Server:
    """A node on which two buckets of three are settled, one as DM and one as NON_DM."""
    await configure(database, bucket_size=3, newcomer_buckets=9)
    server = await start_server()
    await (await server.admin()).add(30, services=["dm_check"])
    ada = await server.volunteer("ada")
    for dm in ("DM", "NON_DM"):
        await ada.submit(await ada.bucket(), dm)
    await recorded(server)
    return server


async def test_kinds_are_counted_by_minute_and_hour_and_forgotten(server: Server, database: Database) -> None:
    viewer = await server.viewer()
    for step in ("minute", "hour"):
        rows = await pages(viewer, "kinds", limit=1, service="dm_check", step=step)
        sums = {label: sum(row["results"] for row in rows if row["label"] == label) for label in ("DM", "NON_DM")}
        assert sums == {"DM": 3, "NON_DM": 3}
        assert [(row["at"], row["label"]) for row in rows] == sorted(
            ((row["at"], row["label"]) for row in rows), reverse=True
        )
    assert await pages(viewer, "kinds", service="follower_check") == []
    assert await pages(viewer, "kinds", service="dm_check", since="2100-01-01T00:00:00Z") == []

    await execute(database, "UPDATE history_kind SET at = at - interval '8 days'")
    async with database.connection() as db:
        await history.forget(db)
    assert await value(database, "SELECT array_agg(DISTINCT step) FROM history_kind") == ["hour"]


async def test_kinds_that_clients_make_up_are_counted_together(server: Server, database: Database) -> None:
    for turn in range(3):
        async with database.transaction() as db:
            await history.add_kinds(db, [(ServiceId(2), f"made up {turn} {n}", 1) for n in range(40)])
            await history.add_kinds(db, [(ServiceId(2), "made up 0 0", 1)])
    rows = await pages(await server.viewer(), "kinds", service="follower_check", step="hour")
    assert sum(row["results"] for row in rows) == 3 * 41
    assert len({row["at"] for row in rows}) * (history.KINDS_OF_A_STEP + 1) >= len(rows)
    assert "others" in {row["label"] for row in rows}


async def settle_links(server: Server, name: str, values: list[Message]) -> None:
    """A client that settles one bucket of the service links."""
    peer = await server.volunteer(name)
    await peer.ok("join", service="links")
    bucket = await peer.bucket("links")
    results = [{"item": one["item"], **value} for one, value in zip(bucket["items"], values, strict=True)]
    await peer.ok("submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=results, final=True)
    await recorded(server)


async def test_shares_of_results_are_counted_for_every_service(server: Server, database: Database) -> None:
    admin, viewer = await server.admin(), await server.viewer()
    alive = {"properties": {"alive": {"type": "boolean"}, "why": {"enum": ["gone", "moved"]}, "n": {"type": "integer"}}}
    links = {"service": "links", "plugin": "generic"}
    for field in ("nothing", "n"):
        settings = {"result_schema": alive, "label_field": field}
        assert await admin.refused("service.add", **links, settings=settings) == "bad_message"
    await admin.ok("service.add", **links, settings={"result_schema": alive, "label_field": "alive", "enrol": "named"})
    await admin.ok("item.add", items=[{"key": f"link{n}"} for n in range(3)], services=["links"])
    await settle_links(server, "adam", [{"alive": n == 0, "n": n} for n in range(3)])

    rows = await pages(viewer, "shares")
    assert [(row["service"], row["label"], row["results"]) for row in rows] == [
        ("dm_check", "DM", 3),
        ("dm_check", "NON_DM", 3),
        ("links", "alive: false", 2),
        ("links", "alive: true", 1),
    ]
    assert [row["label"] for row in await pages(viewer, "shares", service="dm_check")] == ["DM", "NON_DM"]
    assert await pages(viewer, "shares", since="2100-01-01T00:00:00Z") == []

    await admin.ok("service.configure", service="links", settings={"label_field": "why"})
    await admin.ok("item.add", items=[{"key": "another"}], services=["links"])
    await settle_links(server, "eva", [{"why": "moved"}])
    assert "moved" in await value(database, "SELECT array_agg(label) FROM history_kind")


async def test_history_has_seconds(server: Server) -> None:
    viewer = await server.viewer()
    rows = await pages(viewer, "history", service="dm_check", step="second")
    assert sum(row["settled"] for row in rows) == 6


async def test_what_waits_is_counted_by_its_age(server: Server, database: Database) -> None:
    viewer, admin = await server.viewer(), await server.admin()
    await execute(database, "UPDATE bucket SET since = now() - interval '2 hours' WHERE state = 'ready'")
    rows = await pages(viewer, "ages", limit=100, service="dm_check")
    assert [row["since"] for row in rows] == [0, *AGES]
    assert [row["until"] for row in rows] == [*AGES, None]
    assert {row["since"]: row["items"] for row in rows if row["items"]} == {3600: 24}
    await admin.ok("item.add", items=[{"key": "new"}], services=["follower_check"])
    rows = await pages(viewer, "ages", limit=100, service="follower_check")
    assert rows[0]["items"] == 1


async def test_ages_are_counted_once_for_all_who_ask(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A costly count is not made again for another limit, or an `after`."""
    counts = 0
    count = statistics.ages

    async def counted(*arguments: Any) -> list[int]:
        nonlocal counts
        counts += 1
        return await count(*arguments)

    monkeypatch.setattr(statistics, "ages", counted)
    monkeypatch.setattr(cached_query, "monotonic", lambda: 1000.0)  # no pause is over
    viewer = await server.viewer()
    for limit in (1, 2, 100):
        page = await viewer.ok("get", topic="ages", filter={"service": "dm_check"}, limit=limit)
        assert [row["since"] for row in page["rows"]] == [0, *AGES][:limit]
        assert page["next"] is None
    assert counts == 1
    assert await viewer.refused("get", topic="ages", filter={"service": "dm_check"}, after="1") == "bad_message"
    assert counts == 1


NONSENSE: list[tuple[str, Message]] = [
    ("ages", {}),
    ("kinds", {}),
    ("kinds", {"service": "dm_check", "step": "second"}),
]


async def test_a_filter_that_makes_no_sense_is_refused(server: Server) -> None:
    viewer = await server.viewer()
    for topic, which in NONSENSE:
        assert await viewer.refused("get", topic=topic, filter=which) == "bad_message", (topic, which)
