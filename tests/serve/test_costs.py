"""Prices of requests: whoever makes work and brings none is slowed down, and nobody else."""

from __future__ import annotations

import json

import pytest

from coordinator.errors import RateLimited
from coordinator.flow.session_registry import Identity
from coordinator.model import ClientId, ClientMembership, ServiceId
from coordinator.serve import costs
from coordinator.serve.costs import PRICES, Costs
from coordinator.wire import client as wire
from tests.harness import Admin, Server, Volunteer, submission
from tests.serve.tools import CHOICE, join_again, works_well


def test_every_request_has_a_price() -> None:
    assert PRICES.keys() == wire.ANSWERS.keys()
    assert (PRICES[wire.Ask], PRICES[wire.Submit]) == (0, 0)


async def test_who_joins_and_leaves_without_end_is_slowed_and_closed_and_others_notice_nothing(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    server.node.parts.sockets.listener._edge.costs._clients._per_minute = 1000
    flood = await server.volunteer("flood")
    answers = [flood.send("join", service="dm_check", profile=CHOICE[0]["profile"]) for _ in range(300)]
    assert await flood.close_code() == 4429
    given = [answer.result() for answer in answers if answer.done()]
    joined = [answer for answer in given if answer["type"] == "joined"]
    refused = [answer for answer in given if answer["type"] == "error"]
    assert 1 <= len(joined) <= 20
    assert {answer["code"] for answer in refused} == {"rate_limited"}
    assert all(answer["retry_after"] > 0 and answer["scope"] == "client" for answer in refused)
    await works_well(server, admin, volunteer)


async def test_the_sessions_of_a_client_share_its_account(server: Server) -> None:
    server.node.parts.sockets.listener._edge.costs._clients._per_minute = 600
    first = await server.volunteer("client")
    second = await server.volunteer("client")
    for peer in (first, second, first):
        await peer.ok("services")
    for _ in range(30):
        answer = await first.ask_for("recollect")
    assert answer["code"] == "rate_limited"
    assert await second.refused("recollect") == "rate_limited"
    assert (await second.ok("ask", service="dm_check", count=1))["count"] == 1


def identity(name: str, *, settled: bool = False) -> Identity:
    found = Identity(ClientId(name), b"")
    found.memberships[ServiceId(1)] = ClientMembership(ServiceId(1), True, None, {}, settled=settled)
    return found


def test_newcomers_of_one_block_share_an_account_and_who_has_settled_something_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(costs, "OF_A_BLOCK", 60)
    account = Costs()
    hello, leave = wire.Hello(protocol=1, client_id="c", secret="s" * 32), wire.Leave(service="dm_check")
    account.charge(hello, "203.0.113.9", None)
    with pytest.raises(RateLimited):
        account.charge(hello, "203.0.113.9", None)
    with pytest.raises(RateLimited):
        account.charge(leave, "203.0.113.9", identity("newcomer"))
    account.charge(leave, "203.0.113.9", identity("worker", settled=True))
    account.charge(leave, "203.0.113.10", identity("elsewhere"))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.1.2.3"])
def test_loopback_is_no_address(address: str) -> None:
    account = Costs()
    for _ in range(10_000):
        account.charge(wire.Hello(protocol=1, client_id="c", secret="s" * 32), address, None)


async def test_a_refused_submit_costs_and_is_answered(server: Server, admin: Admin) -> None:
    server.node.parts.sockets.listener._edge.costs._clients._per_minute = 300
    client = await server.volunteer("client")
    await admin.add(1)
    bucket = await client.bucket()
    for _ in range(3):
        assert (await client.submit(bucket, dm="PERHAPS"))["code"] == "bad_result"
    assert await client.refused("leave", service="dm_check") == "rate_limited"
    assert (await client.submit(bucket))["closed"]


@pytest.mark.parametrize("kind", ["repeated", "nobodys", "in vain"])
async def test_nothing_that_is_in_vain_is_free(server: Server, admin: Admin, volunteer: Volunteer, kind: str) -> None:
    """Not even where the account is empty: who owes a burst is not read, and who goes on is closed."""
    server.node.parts.sockets.listener._edge.costs._clients._per_minute = 1000
    flood = await server.volunteer("flood")
    await admin.add(1)
    bucket = await flood.bucket()
    assert (await flood.submit(bucket))["closed"]
    asked = {"service": "dm_check", "count": 1}
    request, fields = {
        "repeated": ("submit", submission(bucket)),
        "nobodys": ("submit", {**submission(bucket), "claim": bucket["claim"] + 1}),
        "in vain": ("ask", asked),
    }[kind]

    answers = [flood.send(request, **fields) for _ in range(400)]
    assert await flood.close_code() == 4429
    given = [answer.result() for answer in answers if answer.done()]
    refused = [answer for answer in given if answer.get("code") == "rate_limited"]
    assert 10 <= len(given) - len(refused) <= 150
    assert all(answer["retry_after"] > 0 and answer["scope"] == "client" for answer in refused)
    await works_well(server, admin, volunteer)


def test_one_settled_item_is_not_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "OF_ALL_IN_A_BLOCK", 600)
    account, leave = Costs(), wire.Leave(service="dm_check")
    for number in range(6):
        account.charge(leave, "203.0.113.9", identity(f"worker{number}", settled=True))
    with pytest.raises(RateLimited):
        account.charge(leave, "203.0.113.9", identity("another", settled=True))
    account.charge(leave, "203.0.113.10", identity("elsewhere", settled=True))
    # What brings something is free for all of them.
    account.charge(wire.Ask(service="dm_check", count=1), "203.0.113.9", identity("another", settled=True))


async def test_who_sends_large_frames_in_vain_waits_before_the_next_and_others_do_not(
    server: Server, admin: Admin, volunteer: Volunteer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes some milliseconds to be read and refused, whatever is done about it."""
    server.node.parts.sockets.listener._edge.costs._refused_of_clients._per_minute = 600_000
    flood, large = await server.volunteer("flood"), "x" * 100_000
    assert await flood.refused("nope", text=large) == "unsupported"
    again, _ = await join_again(server, "flood")
    for session in (flood, again):
        session.send("nope", text=large)
        answer = await session.push("error")  # of so large a frame not even the `ref` is read
        assert (answer["code"], answer["scope"]) == ("rate_limited", "connection")
        assert answer["retry_after"] > 0
    await again.ok("services")
    await works_well(server, admin, volunteer)
    assert await volunteer.refused("nope", text=large) == "unsupported"


async def test_a_large_submit_of_no_bucket_counts_as_sent_in_vain(server: Server, admin: Admin) -> None:
    server.node.parts.sockets.listener._edge.costs._refused_of_clients._per_minute = 600_000
    client = await server.volunteer("client")
    await admin.add(1)
    bucket = await client.bucket()
    for results in ([{"item": 1, "dm": "x" * 50_000}], [{"item": "x" * 50_000}]):
        await client.refused("submit", **{**submission(bucket), "results": results})
    large = {**submission(bucket), "bucket_id": "00000000-0000-4000-8000-000000000000", "results": ["x" * 50_000]}
    client.send("submit", **large)
    assert (await client.push("error"))["code"] == "rate_limited"
    assert (await client.submit(bucket))["closed"]


async def test_large_frames_that_are_good_cost_nothing(server: Server, admin: Admin) -> None:
    server.node.parts.sockets.listener._edge.costs._refused_of_clients._per_minute = 600
    client = await server.volunteer("client")
    await admin.add(1)
    bucket = await client.bucket()
    wide = submission(bucket) | {"ref": "wide"}
    for _ in range(5):
        await client.connection.send(json.dumps(wide | {"type": "submit"}) + " " * 100_000)
    assert (await client.ok("services"))["type"] == "services"
    assert not server.node.parts.sockets.listener._edge.costs.wait_after_refused("127.0.0.1", identity("client"))
