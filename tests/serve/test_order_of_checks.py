"""Requests with two faults: the first in the protocol's order is answered.  Deactivation is in force at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer
from tests.serve.tools import add_service, code, eventually, execute, ids, raw, report, results, set_state

NOWHERE = "00000000-0000-4000-8000-000000000000"


async def leave_bucket(server: Server, volunteer: Volunteer, bucket: Message) -> Volunteer:
    """Let the bucket go to another client; returns that client."""
    await volunteer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    other = await server.volunteer("other")
    again = await other.bucket()
    assert again["bucket_id"] == bucket["bucket_id"]
    return other


# The order


async def test_too_many_messages_is_told_before_what_is_wrong_with_them(start_server: StartServer) -> None:
    server = await start_server(messages_per_minute=1)
    client = await server.client()
    for _ in range(10):
        answer = await raw(client, "not json")
        assert answer["code"] == "bad_message"
    answer = await raw(client, "not json")
    assert (answer["code"], "ref" in answer) == ("rate_limited", False)
    answer = await raw(client, json.dumps({"type": "nonsense", "ref": "mine", "results": [1, 2]}))
    assert (answer["code"], answer["ref"]) == ("rate_limited", "mine")
    assert answer["retry_after"] > 0


async def test_wrong_shape_and_unknown_type_come_before_out_of_order(server: Server) -> None:
    client = await server.client()
    assert await client.refused("ask") == "bad_message"
    assert await client.refused("nonsense") == "unsupported"
    assert await client.refused("ask", service="dm_check", count=1, colour="red") == "unsupported"
    assert await client.refused("ask", service="dm_check", count=1) == "out_of_order"


async def test_out_of_order_comes_before_not_registered(server: Server) -> None:
    client = await server.client()
    assert await client.refused("unregister") == "out_of_order"
    await client.hello("nobody")
    answer = await client.ask_for("hello", protocol=1, client_id="nobody", secret="x" * 32)
    assert answer["code"] == "out_of_order"
    assert await client.refused("unregister") == "not_registered"


async def test_wrong_shape_comes_before_not_registered(server: Server) -> None:
    client = await server.client()
    await client.hello("nobody")
    assert await client.refused("release", bucket_id=NOWHERE) == "bad_message"
    for claim in (-1, 0, 2**53, 1.5, "1"):
        assert await client.refused("release", bucket_id=NOWHERE, claim=claim) == "bad_message"
    for name in ("", "x" * 65, "x" * 100, 7):
        assert await client.refused("release", bucket_id=name, claim=1) == "bad_message"
        submit: Message = {"bucket_id": name, "claim": 1, "results": [], "final": True}
        assert await client.refused("submit", **submit) == "bad_message"
    assert await client.refused("release", bucket_id=NOWHERE, claim=1) == "not_registered"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("ask", {"service": "nowhere", "count": 1}),
        ("join", {"service": "nowhere"}),
        ("leave", {"service": "nowhere"}),
        ("activate", {"service": "nowhere"}),
        ("release", {"bucket_id": NOWHERE, "claim": 1}),
        ("submit", {"bucket_id": NOWHERE, "claim": 1, "results": [], "final": True}),
    ],
)
async def test_not_registered_comes_before_unknown_names(server: Server, kind: str, fields: dict[str, Any]) -> None:
    client = await server.client()
    await client.hello("nobody")
    assert await client.refused(kind, **fields) == "not_registered"
    await client.ok("register", screen_name="somebody")
    assert await client.refused(kind, **fields) == ("unknown_bucket" if "bucket_id" in fields else "unknown_service")


async def test_a_report_of_an_unknown_service(server: Server) -> None:
    client = await server.client()
    await client.hello("nobody")
    assert (await report(client, "nowhere"))["code"] == "not_registered"
    await client.ok("register", screen_name="somebody")
    assert (await report(client, "nowhere"))["code"] == "unknown_service"
    assert (await report(client))["code"] == "not_joined"


async def test_a_recollect_of_an_unregistered_client_is_refused(server: Server) -> None:
    client = await server.client()
    await client.hello("nobody")
    assert await client.refused("recollect") == "not_registered"


async def test_an_unknown_bucket_comes_before_not_joined_and_bad_results(server: Server, volunteer: Volunteer) -> None:
    await volunteer.ok("leave", service="dm_check")
    for name in (NOWHERE, "not a uuid", "x" * 64):
        assert await volunteer.refused("release", bucket_id=name, claim=1) == "unknown_bucket"
        answer = await volunteer.ask_for(
            "submit", bucket_id=name, claim=1, results=[{"item": 1, "dm": "PERHAPS"}], final=True
        )
        assert answer["code"] == "unknown_bucket"


async def test_service_revoked_comes_before_not_joined_and_not_owner(
    start_server: StartServer, database: Database
) -> None:
    await add_service(database, "gone", "revoked")
    server = await start_server()
    admin, holder, other = await server.admin(), await server.volunteer("holder"), await server.volunteer("other")
    assert await other.refused("ask", service="gone", count=1) == "service_revoked"
    assert await other.refused("join", service="gone", profile={"source": 5}) == "service_revoked"
    assert await other.refused("leave", service="gone") == "service_revoked"
    assert (await report(other, "gone"))["code"] == "service_revoked"
    await admin.add(2)
    bucket = await holder.bucket()
    await set_state(server, "revoked")
    await other.push("service")
    assert await code(other, bucket) == "service_revoked"
    assert await code(holder, bucket) == "service_revoked"
    assert await results(database) == 0


async def test_deactivated_comes_before_not_owner_and_stale_claim(
    server: Server, admin: Admin, volunteer: Volunteer, bucket: Message
) -> None:
    other = await server.volunteer("other")
    await admin.ok("client.deactivate", client_id="volunteer", service="dm_check")
    assert (await volunteer.push("bucket_lost"))["reason"] == "deactivated"
    answer = await volunteer.submit(bucket)
    assert (answer["code"], answer["detail"]["reason"]) == ("client_deactivated", "admin")
    await admin.ok("client.deactivate", client_id="other", service="dm_check")
    assert await code(other, bucket) == "client_deactivated"
    assert await volunteer.refused("ask", service="dm_check", count=1) == "client_deactivated"
    assert await volunteer.refused("activate", service="dm_check") == "client_deactivated"
    assert await volunteer.refused("join", service="dm_check", profile={"source": "a"}) == "client_deactivated"


async def test_deactivated_comes_before_a_repeat(admin: Admin, volunteer: Volunteer, bucket: Message) -> None:
    assert (await volunteer.submit(bucket))["closed"] is True
    await admin.ok("client.deactivate", client_id="volunteer", service="dm_check")
    assert await code(volunteer, bucket) == "client_deactivated"


async def test_not_joined_comes_before_not_owner(server: Server, volunteer: Volunteer, bucket: Message) -> None:
    other = await server.volunteer("other")
    await other.ok("leave", service="dm_check")
    assert await code(other, bucket) == "not_joined"
    assert await other.refused("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"]) == "not_joined"
    assert await other.refused("ask", service="dm_check", count=0) == "not_joined"
    assert await other.refused("leave", service="dm_check") == "not_joined"
    assert await other.refused("activate", service="dm_check") == "not_joined"


async def test_not_owner_comes_before_strange_items_and_bad_results(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    other = await server.volunteer("other")
    assert await code(other, bucket, items=[999_999]) == "not_owner"
    assert await code(other, bucket, dm="PERHAPS") == "not_owner"
    assert await other.refused("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"]) == "not_owner"
    claim = bucket["claim"] + 1000
    assert await code(other, {**bucket, "claim": claim}) == "not_owner"
    assert (await volunteer.submit(bucket))["closed"] is True
    assert await code(other, bucket) == "not_owner"  # a repeat of somebody else's


async def test_a_stale_claim_comes_before_strange_items_and_bad_results(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    other = await leave_bucket(server, volunteer, bucket)
    assert await code(volunteer, bucket) == "stale_claim"
    assert await code(volunteer, bucket, items=[999_999]) == "stale_claim"
    assert await code(volunteer, bucket, dm="PERHAPS") == "stale_claim"
    assert await code(volunteer, bucket, dm="PERHAPS", items=[999_999]) == "stale_claim"
    assert await volunteer.refused("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"]) == "stale_claim"
    (row,) = (await (await server.admin()).ok("bucket.list", client_id="other"))["rows"]
    assert await code(volunteer, {**bucket, "claim": row["claim"]}) == "not_owner"
    assert other.pushes.empty()


async def test_strange_items_come_before_bad_results(server: Server, volunteer: Volunteer, bucket: Message) -> None:
    answer = await volunteer.ask_for(
        "submit",
        bucket_id=bucket["bucket_id"],
        claim=bucket["claim"],
        results=[{"item": ids(bucket)[0], "dm": "PERHAPS"}, {"item": 999_999, "dm": "DM"}],
        final=False,
    )
    assert (answer["code"], answer["detail"]["items"]) == ("unassigned_items", [999_999])


async def test_bad_results_are_all_named_with_item_and_reason(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    first, second, third, fourth = ids(bucket)
    answer = await volunteer.ask_for(
        "submit",
        bucket_id=bucket["bucket_id"],
        claim=bucket["claim"],
        results=[
            {"item": first, "dm": "DM"},
            {"item": second, "dm": "PERHAPS"},
            {"item": third},
            {"item": fourth, "dm": "DM", "colour": "red"},
        ],
        final=True,
    )
    assert answer["code"] == "bad_result"
    assert [error["item"] for error in answer["detail"]["errors"]] == [second, third, fourth]
    assert all(error["reason"] for error in answer["detail"]["errors"])
    assert answer["detail"]["path"] == "$.results[1].dm"
    assert await results(server.database) == 0
    assert (await volunteer.submit(bucket))["stored"] == 4


async def test_bad_results_come_before_a_conflict(volunteer: Volunteer, bucket: Message) -> None:
    first, second, *_ = ids(bucket)
    await volunteer.submit(bucket, items=[first], final=False)
    fields = {"bucket_id": bucket["bucket_id"], "claim": bucket["claim"], "final": False}
    both = [{"item": first, "dm": "NON_DM"}, {"item": second, "dm": "PERHAPS"}]
    assert await volunteer.refused("submit", results=both, **fields) == "bad_result"
    both[1]["dm"] = "DM"
    assert await volunteer.refused("submit", results=both, **fields) == "conflict"


WRONG: list[Any] = [
    5,
    "text",
    {"item": 1},
    [5],
    [{"dm": "DM"}],
    [{"item": "1", "dm": "DM"}],
    [{"item": 1.5, "dm": "DM"}],
    [{"item": True, "dm": "DM"}],
    [{"item": None, "dm": "DM"}],
    [{"item": 10**30, "dm": "DM"}],
    [[1, "DM"]],
    None,
]


async def test_results_that_are_no_results_are_bad_messages(volunteer: Volunteer, bucket: Message) -> None:
    for wrong in WRONG:
        answer = await volunteer.ask_for(
            "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=wrong, final=True
        )
        assert answer["code"] == "bad_message", (wrong, answer)
        assert answer["detail"]["path"].startswith("$.results")
    assert (await volunteer.submit(bucket))["stored"] == 4


async def test_an_item_twice_in_one_submit_is_a_bad_message(volunteer: Volunteer, bucket: Message) -> None:
    assert await code(volunteer, bucket, items=[*ids(bucket), ids(bucket)[0]]) == "bad_message"


async def test_draining_comes_after_not_joined(server: Server, volunteer: Volunteer, admin: Admin) -> None:
    await admin.add(1)
    bucket = await volunteer.bucket()
    drain = asyncio.create_task(server.node.drain())
    await volunteer.push("drain")
    assert await volunteer.refused("ask", service="nowhere", count=1) == "unknown_service"
    answer = await volunteer.ask_for("ask", service="dm_check", count=1)
    assert (answer["code"], answer["retry_after"] > 0) == ("draining", True)
    assert (await volunteer.submit(bucket))["closed"] is True
    assert await volunteer.close_code() == 1012
    await drain


async def test_an_idle_membership_refuses_only_ask_and_report(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    await volunteer.submit(bucket, items=ids(bucket)[:2])
    await server.node.parts.statistics.recorder.write()  # what it did counts as access when it is written
    await execute(server.database, "UPDATE membership SET last_access = now() - interval '30 days'")

    async def idle() -> bool:
        services = (await volunteer.ok("services"))["services"]
        return not next(one["active"] for one in services if one["service"] == "dm_check")

    await eventually(idle, "not made idle")
    answer = await volunteer.ask_for("ask", service="dm_check", count=1)
    assert (answer["code"], answer["detail"]["reason"]) == ("client_deactivated", "idle")
    assert (await report(volunteer))["code"] == "client_deactivated"
    repeat = await volunteer.submit(bucket, items=ids(bucket)[:2])
    assert (repeat["type"], repeat["duplicate"]) == ("stored", True)
    assert await volunteer.refused("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"]) == "stale_claim"
    await volunteer.ok("activate", service="dm_check")
    await execute(server.database, "DELETE FROM return_block")
    assert len(ids(await volunteer.bucket())) == 2


# Deactivation


async def test_a_deactivation_is_in_force_when_the_admin_has_the_answer(server: Server, admin: Admin) -> None:
    clients = [await server.volunteer(f"client{n}") for n in range(10)]
    for client in clients:
        await admin.ok("client.deactivate", client_id=client.client_id, service="dm_check")
        answer = await client.ask_for("ask", service="dm_check", count=1)
        assert answer.get("code") == "client_deactivated", answer


async def test_a_deactivated_client_gets_nothing_any_more(server: Server, admin: Admin) -> None:
    for round_ in range(10):
        client = await server.volunteer(f"client{round_}")
        await client.ok("ask", service="dm_check", count=5)
        adding = admin.send("item.add", items=[{"key": f"round{round_}"}])
        await admin.ok("client.deactivate", client_id=client.client_id, service="dm_check")
        await adding
        await client.ok("services")
        rows = (await admin.ok("bucket.list", client_id=client.client_id, state="claimed"))["rows"]
        assert rows == []
