"""Lists, frames and errors have bounds of their own: one message costs the node little, whatever is in it."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from tests.bounded import within
from tests.harness import PATIENCE, Admin, Message, Server, Volunteer, secret_of
from tests.serve.tools import ids

CHOICE = {"service": "dm_check", "profile": {"source": "somebody"}}


def of_submit(bucket: Message, results: list[Message]) -> Message:
    return {"bucket_id": bucket["bucket_id"], "claim": bucket["claim"], "results": results, "final": True}


@pytest.mark.parametrize(("bad", "more"), [(100, None), (101, 1), (170, 70)])
async def test_a_hundred_bad_results_are_named_and_the_rest_is_counted(
    admin: Admin, volunteer: Volunteer, bad: int, more: int | None
) -> None:
    await admin.add(180)
    bucket = await volunteer.bucket()
    results = [{"item": item, "dm": "perhaps" if place < bad else "DM"} for place, item in enumerate(ids(bucket))]
    refused = await volunteer.ask_for("submit", **of_submit(bucket, results))
    assert refused["code"] == "bad_result"
    assert len(refused["detail"]["errors"]) == min(bad, 100)
    assert refused["detail"].get("more") == more
    assert refused["message"].startswith(f"{bad} of the results")


async def test_a_hundred_unassigned_items_are_named_and_the_rest_is_counted(admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(1)
    bucket = await volunteer.bucket()
    results = [{"item": 10_000 + number, "dm": "DM"} for number in range(250)]
    refused = await volunteer.ask_for("submit", **of_submit(bucket, results))
    assert refused["code"] == "unassigned_items"
    assert (len(refused["detail"]["items"]), refused["detail"]["more"]) == (100, 150)


async def test_a_bad_submit_of_a_megabyte_is_answered_by_little(admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(1)
    bucket = await volunteer.bucket()
    results = [{"item": number} for number in range(60_000)]
    refused = await volunteer.ask_for("submit", **of_submit(bucket, results))
    assert refused["type"] == "error"
    assert len(str(refused)) < 20_000


async def test_bad_results_of_a_schema_are_named_to_a_hundred_too(admin: Admin, server: Server) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    await admin.ok("service.add", service="any", plugin="generic", settings={"result_schema": schema})
    volunteer = await server.volunteer("volunteer")
    await volunteer.ok("join", service="any")
    await admin.add(150, services=["any"])
    bucket = await volunteer.bucket("any")
    refused = await volunteer.ask_for("submit", **of_submit(bucket, [{"item": item, "ok": 1} for item in ids(bucket)]))
    assert (len(refused["detail"]["errors"]), refused["detail"]["more"]) == (100, 50)


@pytest.mark.parametrize("times", [2, 101, 1000])
async def test_a_service_stands_once_in_a_registration(server: Server, times: int) -> None:
    peer = await server.client()
    await peer.hello("volunteer")
    refused = await peer.ask_for("register", screen_name="volunteer", services=[CHOICE] * times)
    assert (refused["code"], refused["detail"]["path"]) == ("bad_registration", "$.services")
    await peer.ok("register", screen_name="volunteer", services=[CHOICE])


async def test_a_registration_joins_all_its_services_by_one_statement(server: Server) -> None:
    peer = await server.client()
    await peer.hello("volunteer")
    services = [
        {"service": name, "profile": {"source": "me"}} for name in ("follower_check", "dm_check", "following_check")
    ]
    registered = await peer.ok("register", screen_name="volunteer", services=services)
    assert all(row["joined"] for row in registered["services"])
    calls = {row.statement: row.calls for row in server.node.parts.core.database.load.snapshot().statements}
    assert calls["clients.join"] == 1


async def test_a_bucket_stands_once_among_the_holds_and_there_are_not_too_many(
    server: Server, volunteer: Volunteer
) -> None:
    hold = {"bucket_id": str(uuid4()), "claim": 1}
    many = [{"bucket_id": str(number), "claim": 1} for number in range(1001)]
    for holds in ([hold, hold], many):
        assert await volunteer.refused("recollect", holds=holds) == "bad_message"
        peer = await server.client()
        fields = {"protocol": 1, "client_id": "other", "secret": secret_of("other")}
        assert await peer.refused("hello", **fields, holds=holds) == "bad_message"
        assert (await peer.ok("hello", **fields, holds=[hold]))["recollected"]["dropped"] == [hold["bucket_id"]]


async def test_frames_are_small_until_the_client_is_registered(server: Server) -> None:
    large = "x" * 70_000
    stranger = await server.client()
    await stranger.hello("stranger")
    stranger.send("join", service="dm_check", profile={"source": large})
    assert await stranger.close_code() == 1009

    volunteer = await server.client()
    await volunteer.hello("volunteer")
    await volunteer.ok("register", screen_name="volunteer", services=[CHOICE])
    assert await volunteer.refused("join", service="dm_check", profile={"source": large}) == "bad_message"
    again = await server.volunteer("volunteer")
    assert await again.refused("join", service="dm_check", profile={"source": large}) == "bad_message"


async def test_another_session_of_a_client_that_was_registered_sends_large_frames_too(server: Server) -> None:
    first, second = await server.client(), await server.client()
    await first.hello("volunteer")
    await second.hello("volunteer")
    await first.ok("register", screen_name="volunteer", services=[CHOICE])
    await second.ok("ask", service="dm_check", count=0)
    assert await second.refused("join", service="dm_check", profile={"source": "x" * 70_000}) == "bad_message"


async def test_strangers_of_one_address_send_few_bytes_together(server: Server, volunteer: Volunteer) -> None:
    frame = json.dumps({"type": "services", "x": "y" * 60_000})
    strangers = [await server.client() for _ in range(4)]
    for number, stranger in enumerate(strangers):
        await stranger.hello(f"stranger{number}")

    codes = []
    for _ in range(15):
        for stranger in strangers:
            await stranger.connection.send(frame)
            codes.append((await within(stranger.pushes.get(), PATIENCE))["code"])
    assert codes[:10] == ["unsupported"] * 10
    assert codes.count("unsupported") < 40, "a tenth of 16 MiB, and what came back meanwhile"
    assert set(codes) == {"unsupported", "rate_limited"}

    for _ in range(60):  # a client that is known has its own budget, whoever else comes from its address
        await volunteer.connection.send(frame)
        assert (await within(volunteer.pushes.get(), PATIENCE))["code"] == "unsupported"
