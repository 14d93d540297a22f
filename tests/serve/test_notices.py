"""Messages of operators reach the clients that they are meant for, each once, and no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coordinator.store import notices
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Server, Volunteer
from tests.serve.tools import eventually, execute, join_again, no_push

SOON = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


async def said(peer: Volunteer) -> str:
    """The text of the next push, which must be a notice."""
    return str((await peer.push("notice"))["text"])


async def test_all_are_told_at_once_and_in_each_welcome(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    stranger = await server.client()
    assert (await stranger.hello("stranger"))["notices"] == []

    sent = await admin.ok("notice.send", text="one\ntwo", level="warning", until=SOON)
    for peer in (volunteer, stranger):
        push = await peer.push("notice")
        assert push["notice_id"] == sent["notice_id"]
        assert (push["text"], push["level"]) == ("one\ntwo", "warning")
        assert datetime.fromisoformat(push["until"]) == datetime.fromisoformat(SOON)
        assert "service" not in push

    _, welcome = await join_again(server, "volunteer")
    assert welcome["notices"] == [{name: field for name, field in push.items() if name != "type"}]


async def test_a_notice_to_one_client_or_to_members_reaches_no_other(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    other = await server.volunteer("other")
    await admin.ok("notice.send", text="to you", client_id="volunteer")
    await admin.ok("notice.send", text="to followers", service="follower_check")
    await admin.ok("notice.send", text="to senders", service="dm_check")
    await admin.ok("notice.send", text="to you of followers", client_id="volunteer", service="follower_check")
    assert [await said(volunteer), await said(volunteer)] == ["to you", "to senders"]
    assert await said(other) == "to senders"
    await no_push(volunteer)
    await no_push(other)

    # Who takes its name without its secret hears nothing of it.
    await admin.ok("client.forget_secret", client_id="volunteer")
    thief = await server.client()
    assert (await thief.hello("volunteer"))["notices"] == []


async def test_members_are_told_when_they_join(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    beside, _ = await join_again(server, "volunteer")
    await admin.ok("notice.send", text="welcome", service="follower_check")
    await volunteer.ok("join", service="follower_check")
    assert [await said(volunteer), await said(beside)] == ["welcome", "welcome"]
    await volunteer.ok("join", service="follower_check")
    await no_push(volunteer)


async def test_one_that_is_withdrawn_or_over_is_told_to_nobody(
    server: Server, admin: Admin, database: Database, volunteer: Volunteer
) -> None:
    first = (await admin.ok("notice.send", text="first"))["notice_id"]
    second = (await admin.ok("notice.send", text="second", until=SOON))["notice_id"]
    assert [await said(volunteer), await said(volunteer)] == ["first", "second"]
    assert [row["notice_id"] for row in (await admin.ok("notice.list", limit=1))["rows"]] == [first]

    assert (await admin.ok("notice.withdraw", notice_id=first))["withdrawn"] == 1
    await execute(database, "UPDATE notice SET until = now()")
    assert (await admin.ok("notice.list"))["rows"] == []
    for gone in (first, second, "x", "9" * 19):
        assert await admin.refused("notice.withdraw", notice_id=gone) == "not_found"

    await server.node.parts.work.notices.load()
    _, welcome = await join_again(server, "volunteer")
    assert welcome["notices"] == []


@pytest.mark.parametrize(
    ("fields", "code", "path"),
    [
        ({"text": ""}, "bad_message", "$.text"),
        ({"text": "x" * 2001}, "bad_message", "$.text"),
        ({"text": "a\x1b[2J"}, "bad_message", "$.text"),
        ({"text": "a\u200bb"}, "bad_message", "$.text"),
        ({"text": "a\tb"}, "bad_message", "$.text"),
        ({"text": "a", "until": "2020-01-01T00:00:00Z"}, "bad_message", "$.until"),
        ({"text": "a", "until": "noon"}, "bad_message", "$.until"),
        ({"text": "a", "level": "loud"}, "bad_message", "$.level"),
        ({"text": "a", "client_id": "nobody"}, "not_found", None),
        ({"text": "a", "service": "nothing"}, "not_found", None),
    ],
)
async def test_refused(admin: Admin, fields: dict[str, str], code: str, path: str | None) -> None:
    refusal = await admin.ask_for("notice.send", **fields)
    assert (refusal.get("code"), refusal.get("detail", {}).get("path")) == (code, path)
    if "\u200b" in fields["text"]:
        assert "U+200B ZERO WIDTH SPACE" in refusal["message"]


async def test_an_operator_may_send_and_what_is_in_force_is_bounded(server: Server, database: Database) -> None:
    operator = await server.admin("operator")
    await server.volunteer("ada")
    for n in range(notices.MAX_FOR_ONE_ADDRESSEE):
        await operator.ok("notice.send", text=f"to all {n}")
        await operator.ok("notice.send", text=f"to ada {n}", client_id="ada")
    assert await operator.refused("notice.send", text="one more") == "quota"
    assert await operator.refused("notice.send", text="one more", client_id="ada", service="dm_check") == "quota"

    many = notices.MAX_IN_FORCE - 2 * notices.MAX_FOR_ONE_ADDRESSEE
    await execute(database, "INSERT INTO notice (level, text) SELECT 'info', 'x' FROM generate_series(1, $1)", many - 1)
    await operator.ok("notice.send", text="the last", service="dm_check")
    assert await operator.refused("notice.send", text="one more", service="follower_check") == "quota"


async def test_clients_of_another_node_are_told_also_by_one_that_missed_the_signal(
    server: Server, admin: Admin, start_server: StartServer, database: Database
) -> None:
    other = await start_server(node_name="other")
    volunteer = await other.volunteer("ada")
    sent = (await admin.ok("notice.send", text="by signal"))["notice_id"]
    assert await said(volunteer) == "by signal"

    await execute(database, "INSERT INTO notice (level, text) VALUES ('error', 'without a signal')")
    await other.node.parts.work.notices.load()  # as after each loss of the connection that listens
    assert await said(volunteer) == "without a signal"

    await admin.ok("notice.withdraw", notice_id=sent)

    async def forgotten() -> bool:
        peer = await other.client()
        return [notice["text"] for notice in (await peer.hello("ada"))["notices"]] == ["without a signal"]

    await eventually(forgotten, "it is still told")
