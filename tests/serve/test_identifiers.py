"""Numbers of accounts beyond 2^53 are kept and sent as they were given, as integers or as texts of digits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.harness import Admin, Server

LARGE = [1, 2**53 + 1, 2**63 - 1, str(2**53 + 1), "0012", "9" * 32]


@pytest.mark.parametrize("number", LARGE)
@pytest.mark.parametrize("service", ["dm_check", "follower_check"])
async def test_a_number_in_a_profile(server: Server, service: str, number: int | str) -> None:
    peer = await server.client()
    await peer.hello("peer")
    profile = {"source": "me", "source_id": number}
    await peer.ok("register", screen_name="peer", services=[{"service": service, "profile": profile}])
    async with server.database.connection() as db:
        kept = await db.fetchval("SELECT profile::text FROM membership WHERE client_id = 'peer'")
    assert json.loads(kept) == profile


@pytest.mark.parametrize("number", [0, -1, 2**63, 1.5, "", "12a", "9" * 33, "12\n", True])
@pytest.mark.parametrize("service", ["dm_check", "following_check"])
async def test_other_numbers_are_refused(server: Server, service: str, number: Any) -> None:
    peer = await server.volunteer("peer")
    refused = await peer.ask_for("join", service=service, profile={"source": "me", "source_id": number})
    assert (refused["code"], refused["detail"]["path"]) == ("bad_message", "$.profile.source_id")


async def test_numbers_in_results(server: Server, admin: Admin) -> None:
    await admin.ok("service.add", service="ids", plugin="generic", settings={"result_schema": {"type": "object"}})
    await admin.ok(
        "item.add", items=[{"key": "ada", "id": 2**63 - 1, "also": "9" * 32}], services=["ids", "follower_check"]
    )
    peer, viewer = await server.volunteer("peer"), await server.viewer()
    accounts = [{"key": f"a{place}", "attributes": {"id": number}} for place, number in enumerate(LARGE)]

    for service, value in (("ids", {"ids": LARGE}), ("follower_check", {"accounts": accounts})):
        await peer.ok("join", service=service)
        bucket = await peer.bucket(service)
        assert (bucket["items"][0]["id"], bucket["items"][0]["also"]) == (2**63 - 1, "9" * 32)
        stored = await peer.ok(
            "submit",
            bucket_id=bucket["bucket_id"],
            claim=bucket["claim"],
            results=[{"item": bucket["items"][0]["item"], **value}],
            final=True,
        )
        assert stored["stored"] == 1
        listed = await admin.ok("result.list", service=service)
        exported = await admin.ok("result.export", service=service, format="jsonl")
        page = await viewer.ok("get", topic="results", filter={"service": service})
        assert [rows["rows"][0]["value"] for rows in (listed, exported, page)] == [value] * 3
