"""Results that the server refuses, and the limits that it sets: what the volunteer is told, and how work goes on."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.held_buckets import CheckerUseless
from coordinator.client.result_parts import reason_with_field
from tests.bounded import within
from tests.harness import Admin, Server

from .conftest import NewClient
from .scripted import ScriptedServer, grant_bucket
from .trouble import at_work, client_row, logged, settled

Record = dict[str, Any]


async def wrong(item: Record, profile: Record) -> Record:
    return {"dm": "PERHAPS"}


async def right(item: Record, profile: Record) -> Record:
    return {"dm": "DM"}


async def small_buckets(admin: Admin, **settings: Any) -> None:
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 5, **settings})


async def test_a_checker_of_another_shape_ends_with_the_reason(
    node: Server, admin: Admin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "coordinator.client")
    await small_buckets(admin)
    await admin.add(60)
    async with at_work(node, tmp_path, wrong) as daemon:
        with pytest.raises(
            CheckerUseless, match=r"all results of 3 buckets in a row.*item \d+: dm: Invalid enum value 'PERHAPS'"
        ):
            await within(asyncio.shield(daemon), 20)
        assert (await client_row(admin))["health"] != "flagged"

    lines = [line for line in caplog.messages if "refused and dropped" in line]
    assert len(lines) == 3  # one a bucket, whatever the number of its results, and no bucket after the third
    assert "refused and dropped, 5 results: " in lines[0]
    assert lines[0].count("Invalid enum value 'PERHAPS'") == 1


async def test_a_checker_that_raises_over_every_item_ends_with_the_reason(
    node: Server, admin: Admin, tmp_path: Path
) -> None:
    async def broken(item: Record, profile: Record) -> Record:
        return {"dm": item["no_such_field"]}

    await small_buckets(admin)
    await admin.add(60)
    async with at_work(node, tmp_path, broken) as daemon:
        with pytest.raises(CheckerUseless, match="failed over all items of 3 buckets of dm_check: KeyError: 'no_such_"):
            await within(asyncio.shield(daemon), 20)
        assert (await client_row(admin))["health"] != "flagged"


async def test_some_wrong_results_end_nothing(node: Server, admin: Admin, tmp_path: Path) -> None:
    async def mixed(item: Record, profile: Record) -> Record:
        return await (wrong if item["item"] % 5 == 0 else right)(item, profile)

    await small_buckets(admin)
    await admin.add(60)
    async with at_work(node, tmp_path, mixed) as daemon:
        await settled(node, 48)
        assert not daemon.done()


@pytest.mark.measured
async def test_a_client_that_may_hold_two_small_buckets_works_at_full_speed(
    node: Server, admin: Admin, tmp_path: Path
) -> None:
    """It asks again as soon as one of its own ends, and not 15 s later."""
    await small_buckets(admin, max_held_buckets=2)
    await admin.add(200)
    began = time.monotonic()
    async with at_work(node, tmp_path, right):
        await settled(node, 200)
    assert time.monotonic() - began < 12


async def test_a_client_that_is_held_to_one_bucket_is_told_and_asks_at_its_end(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "coordinator.client")
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check", concurrency=2)
        ask = await peer.read("ask")
        await peer.answer(ask, "asked", service="dm_check", count=1, pending=1, limit=10)
        await peer.bucket("b", 1, 1)
        bucket = await anext(stream)

        ask = await peer.read("ask")  # it may order ahead, and is granted nothing
        await peer.answer(ask, "asked", service="dm_check", count=0, pending=0, limit=1)
        await bucket.settle(1, dm="DM")
        await peer.stored(await peer.read("submit"))

        ask = await within(peer.read("ask"), 5)
        await peer.answer(ask, "asked", service="dm_check", count=2, pending=2, limit=10)
        peer.carry_on()
    flagged, again = [line for line in caplog.messages if "at a time" in line]
    assert "its work there is flagged" in flagged
    assert "again" in again


async def test_the_line_of_a_bucket_counts_all_that_was_stored(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coordinator.client")
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 1, 1, 2, 3)
        first = asyncio.create_task(bucket.submit([{"item": 1, "dm": "DM"}, {"item": 2, "dm": "DM"}], final=False))
        await peer.stored(await peer.read("submit"), remaining=1)
        await first
        await bucket.settle(3, dm="DM")
        await peer.stored(await peer.read("submit"))
        await within(bucket.ended.wait(), 5)
        peer.carry_on()
    assert [line.partition("is done: ")[2] for line in caplog.messages if "is done" in line] == ["3 stored, 0 go back"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"reason": "no", "path": "$.results[3].dm"}, "dm: no"),
        ({"reason": "no", "path": "$.results[12].accounts[2].key"}, "accounts[2].key: no"),
        ({"reason": "no", "path": "$.results[3]"}, "no"),
        ({"reason": "no", "path": 7}, "no"),
        ({"reason": "no"}, "no"),
    ],
)
def test_the_field_of_a_refused_result_is_named(error: Record, said: str) -> None:
    assert reason_with_field(error) == said


async def test_a_wait_is_told_once(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.client.bucket_stream._SILENT_WAIT", 0.1)
    caplog.set_level(logging.INFO, "coordinator.client")
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check")
        with logged("dm_check: waiting") as told:
            await peer.asked(await peer.read("ask"))
            await within(told.wait(), 5)
        await peer.bucket("b", 1, 1)
        await anext(stream)
        peer.carry_on()
    assert sum("waiting; the server has nothing" in line for line in caplog.messages) == 1


async def test_a_text_in_a_push_of_a_newer_server_is_shown(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coordinator.client")
    async with new_client() as client:
        peer = await server.work()
        await peer.say("hint", service="dm_check", text="You hold\x1b[2J what you may.")
        await peer.say("another", number=1)
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 1, 1)
        assert bucket.bucket_id == "b"
        peer.carry_on()
    assert "the server says: dm_check: You hold\x1b[2J what you may." in caplog.messages  # the formatter escapes it
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
