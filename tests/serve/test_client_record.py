"""Records of clients on the stats channel: their hours, their results beside the others', and refused submits."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Message, Server, Viewer
from tests.serve.tools import configure, eventually


@pytest.fixture
async def worked(start_server: StartServer, database: Database) -> Server:
    """A node on which ada settled two buckets with DM and gave one back, and bob settled one with NON_DM."""
    await configure(database, bucket_size=3)
    server = await start_server()
    await (await server.admin()).add(30, services=["dm_check"])
    ada, bob = await server.volunteer("ada"), await server.volunteer("bob")
    for _ in range(2):
        await ada.submit(await ada.bucket())
    await bob.submit(await bob.bucket(), "NON_DM")
    bucket = await ada.bucket()
    await ada.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    await server.node.parts.statistics.recorder.write()
    return server


async def rows(viewer: Viewer, table: str, **which: str) -> list[Message]:
    """Return the rows of a table."""
    found: list[Message] = (await viewer.ok("get", topic=table, filter=which))["rows"]
    return found


async def test_the_hours_of_a_client_are_its_claims(worked: Server) -> None:
    viewer = await worked.viewer()
    told = await rows(viewer, "client_hours", client_id="ada", service="dm_check")
    sums = {name: sum(row[name] for row in told) for name in ("settled", "claims", "given_back", "dead", "disconnects")}
    assert sums == {"settled": 6, "claims": 3, "given_back": 1, "dead": 0, "disconnects": 0}
    assert await rows(viewer, "client_hours", client_id="nobody") == []
    assert await viewer.refused("get", topic="client_hours") == "bad_message"
    assert await viewer.refused("get", topic="outcomes", filter={"client_id": "ada"}, after="x") == "bad_message"


async def test_results_of_a_client_stand_beside_those_of_the_others(worked: Server) -> None:
    viewer = await worked.viewer()
    assert await rows(viewer, "outcomes", client_id="bob") == [
        {"service": "dm_check", "label": "DM", "own": 0, "others": 6},
        {"service": "dm_check", "label": "NON_DM", "own": 3, "others": 0},
    ]


async def test_a_refused_submit_is_an_event_and_the_next_ones_are_not(worked: Server) -> None:
    peer = await worked.volunteer("bad")
    bucket = await peer.bucket()
    wrong = {"item": bucket["items"][0]["item"], "dm": "MAYBE"}
    for _ in range(3):
        claim = {"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}
        assert await peer.refused("submit", **claim, results=[wrong], final=False) == "bad_result"
    viewer = await worked.viewer()

    async def told() -> bool:
        return bool(await rows(viewer, "events", client_id="bad", kind="refused"))

    await eventually(told, "events are written once a second")
    (event,) = await rows(viewer, "events", client_id="bad", kind="refused")
    assert (event["service"], event["bucket_id"]) == ("dm_check", bucket["bucket_id"])
    assert event["text"].startswith("$.results[0].dm: ")
    assert "MAYBE" in event["text"]
