"""The daemon while its outside API is out, refuses, or fails over single accounts: a real node, and the stand-in."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import x_api
from coordinator.errors import ConfigError
from coordinator.standin import StandIn
from coordinator.standin_troubles import ApiFault, Troubles
from tests.bounded import within
from tests.harness import Admin, Server
from tests.serve.tools import value

from .trouble import at_work, client_row, dm, logged, settled


def nothing_held_against(row: dict[str, Any]) -> bool:
    counts = ("given_back", "dead", "disconnects", "bad_submits")
    return row["health"] == "ok" and not any(row[name] for name in counts)


async def test_an_outage_costs_nobody_anything(
    node: Server, admin: Admin, standin: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "coordinator.client")
    await admin.add(400)
    async with at_work(node, tmp_path, dm(standin), concurrency=16):
        await standin.answered(200, 50)
        standin.troubles.down = 503
        began = time.monotonic()
        await standin.answered(503, 16 + 24)  # those under way, then two for each pause of up to 0.3 s
        assert time.monotonic() - began > 0.8

        standin.troubles.down = None
        await settled(node, 400)
        row = await client_row(admin)

    assert nothing_held_against(row), row
    assert await value(node.database, "SELECT report_kind FROM membership") == "upstream_limited"
    out = [line for line in caplog.messages if "the outside API" in line]
    assert len(out) == 2, out
    assert "is out" in out[0]
    assert "works again" in out[1]


async def test_items_go_back_in_an_outage_before_their_bucket_is_dead(
    node: Server, admin: Admin, standin: StandIn, tmp_path: Path
) -> None:
    await admin.ok("service.configure", service="dm_check", settings={"dead_after": 3, "release_after": 1})
    await admin.add(400)
    standin.troubles.down = 503
    with logged("gives back") as back:
        async with at_work(node, tmp_path, dm(standin)):
            await within(back.wait(), 20)
            asked = standin.answers[503]
            await standin.answered(503, asked + 12)  # it goes on looking, for 3 s and more, with nothing in hand
            assert (await admin.ok("bucket.list", service="dm_check", state="claimed"))["rows"] == []

            standin.troubles.down = None
            await settled(node, 180)  # the buckets that it gave back are not offered to it again at once
            row = await client_row(admin)
    assert row["health"] == "ok"
    assert row["dead"] == 0


@pytest.mark.parametrize("switch", ["protected", "suspended", "blocking"])
async def test_accounts_that_show_nothing_are_settled(
    node: Server, admin: Admin, standin: StandIn, tmp_path: Path, switch: str
) -> None:
    """The last items of a campaign, all of that kind, end it as any others do."""
    await admin.add(40)
    setattr(standin.troubles, switch, {f"account{n}" for n in range(40)})
    async with at_work(node, tmp_path, dm(standin)) as daemon:
        await settled(node, 40)
        assert not daemon.done()
        assert nothing_held_against(await client_row(admin))


@pytest.mark.parametrize("broken", [1, 60])
async def test_accounts_over_which_the_api_fails_are_unknown(
    node: Server, admin: Admin, standin: StandIn, tmp_path: Path, broken: int
) -> None:
    """One among others, or all that a new daemon meets: it asks about another account, and sees that the API works."""
    await admin.add(60)
    standin.troubles.broken = {f"account{n}" for n in range(broken)}
    async with at_work(node, tmp_path, dm(standin)):
        await settled(node, 60)
        assert nothing_held_against(await client_row(admin))

    listed = await admin.ok("result.list", service="dm_check", key="account0")
    assert [row["value"]["dm"] for row in listed["rows"]] == ["UNKNOWN"]


async def test_a_list_over_which_the_api_fails_goes_back_alone(
    node: Server, admin: Admin, standin: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await admin.add(60)
    standin.troubles.broken = {"account7"}
    check = x_api.follower_check(standin.url, "t", requests_per_window=0)
    async with at_work(node, tmp_path, check, service="follower_check"):
        await settled(node, 59, "follower_check")
        assert (await client_row(admin, service="follower_check"))["health"] == "ok"
    assert "(account7) cannot be checked: The outside API fails over this item alone: The API has" in caplog.text


@pytest.mark.measured
@pytest.mark.parametrize("clock", [-3600.0, 3600.0])
async def test_a_wrong_clock_costs_no_requests_and_no_time(
    node: Server, admin: Admin, tmp_path: Path, clock: float
) -> None:
    await admin.add(60)
    async with StandIn(latency=0.0, jitter=0.0, requests=20, window=2.0, troubles=Troubles(clock=clock)) as api:
        began = time.monotonic()
        async with at_work(node, tmp_path, dm(api), concurrency=8):
            await settled(node, 60)
        assert time.monotonic() - began < 20
        assert api.answers[429] == 0


async def test_the_limit_of_the_day_is_kept(node: Server, admin: Admin, standin: StandIn, tmp_path: Path) -> None:
    """Another client gets what this one cannot check before its bucket would be dead."""
    await admin.add(60)
    standin.troubles.daily = 20
    with logged("takes no more for") as told:
        async with at_work(node, tmp_path, dm(standin, "limited"), concurrency=8):
            await within(told.wait(), 20)
            await settled(node, 20)
            assert standin.served == 20

            standin.troubles.daily = 0
            async with at_work(node, tmp_path, dm(standin, "free"), name="bob"):
                await settled(node, 60)
            row = await client_row(admin)
    assert row["health"] == "ok"
    assert (row["dead"], row["disconnects"], row["bad_submits"], row["settled"]) == (0, 0, 0, 20)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (ApiFault.of(401, 89, "Invalid or expired token."), "The token is invalid or has expired"),
        (ApiFault.of(403, 453, "You currently have access to a subset."), "access level is too low"),
        (ApiFault(401, {}), "refused the requests for 10 accounts in a row"),
        (ApiFault(401, {"error": "Not authorized."}), "does not even show the account X to the token"),
    ],
)
async def test_what_is_about_the_volunteer_ends_the_daemon(
    node: Server, admin: Admin, standin: StandIn, tmp_path: Path, fault: ApiFault, sentence: str
) -> None:
    await admin.add(60)
    standin.troubles.refusing = fault
    async with at_work(node, tmp_path, dm(standin), concurrency=2) as daemon:
        with pytest.raises(ConfigError, match=sentence):
            await within(asyncio.shield(daemon), 20)
    assert standin.served <= 12
    assert (await client_row(admin))["health"] == "ok"


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (socket.gaierror(-2, "Name or service not known"), "is not found (DNS)"),
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (ConnectionResetError(104, "Connection reset by peer"), "broke: Connection reset by peer"),
        (TimeoutError(), "did not answer in time"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "does not speak TLS"),
    ],
)
async def test_the_network_of_any_checker_may_be_out(
    node: Server, admin: Admin, tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: Exception, cause: str
) -> None:
    """A volunteer's own function need not know our errors: those of the network are no fault of the items."""
    calls = 0

    async def check(item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls <= 12:
            raise failure
        return {"dm": "DM"}

    await admin.add(20)
    async with at_work(node, tmp_path, check):
        await settled(node, 20)
        assert nothing_held_against(await client_row(admin))
    assert cause in caplog.text
    assert "cannot be checked" not in caplog.text
