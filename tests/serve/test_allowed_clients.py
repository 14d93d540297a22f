"""Services that take only some programs: they refuse the asks of others, and nothing else."""

from __future__ import annotations

import pytest

from coordinator.flow import wait_teller
from tests.bounded import within
from tests.harness import PATIENCE, Admin, Server
from tests.serve.tools import no_push


async def configure(admin: Admin, **settings: object) -> None:
    await admin.ok("service.configure", service="dm_check", settings=settings)


async def test_an_ask_of_a_program_that_is_too_old(server: Server, admin: Admin) -> None:
    await admin.add(200)
    old = await server.volunteer("old", agent="ours/1.2.9 (linux)")
    new = await server.volunteer("new", agent="ours/1.3")
    unnamed = await server.volunteer("unnamed")
    bucket = await old.bucket()

    await configure(admin, agents={"ours": "1.3"})
    for wait in (True, False):
        answer = await old.ask_for("ask", service="dm_check", count=1, wait=wait)
        assert (answer["code"], answer["detail"]) == ("outdated", {"agent": "ours/1.2.9 (linux)", "minimum": "1.3"})
        assert "install 1.3 or newer" in answer["message"]
    assert (await old.submit(bucket))["closed"] is True
    assert (await old.ok("ask", service="dm_check", count=0))["pending"] == 0
    await new.ok("ask", service="dm_check", count=1)
    await unnamed.ok("ask", service="dm_check", count=1)

    await configure(admin, agents_only=True)
    answer = await unnamed.ask_for("ask", service="dm_check", count=1)
    assert (answer["code"], answer["detail"]) == ("outdated", {"agent": None, "minimum": None})
    assert (await new.ok("ask", service="dm_check", count=1))["count"] == 1
    await configure(admin, agents=None, agents_only=None)
    assert (await unnamed.ok("ask", service="dm_check", count=1))["count"] == 1


async def test_it_comes_after_not_joined(server: Server, admin: Admin) -> None:
    client = await server.volunteer("client")
    await configure(admin, agents_only=True)
    assert await client.refused("ask", service="dm_check", count=1) == "outdated"
    await client.ok("leave", service="dm_check")
    assert await client.refused("ask", service="dm_check", count=1) == "not_joined"


async def test_what_is_outstanding_waits_until_it_is_taken_again(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_teller, "TELL_INTERVAL", 0.02)
    client, other = await server.volunteer("client", agent="ours/1.2"), await server.volunteer("other", agent="ours/2")
    assert (await client.ok("ask", service="dm_check", count=1))["waiting"]["reason"] == "no_items"
    await configure(admin, agents={"ours": "1.3"})
    push = await within(client.waits.get(), PATIENCE)
    assert (push["reason"], "install 1.3 or newer" in push["text"]) == ("outdated", True)
    assert (await client.push("service"))["service"] == "dm_check"
    await admin.add(2)
    row = (await admin.ok("client.show", client_id="client"))["services"][0]
    assert row["waiting"]["reason"] == "outdated"
    assert (await other.push("service"))["service"] == "dm_check"
    await other.submit(await other.bucket())
    await admin.add(1, prefix="later")
    await no_push(client)

    await configure(admin, agents={"ours": "1.2"})
    await client.push("service")
    await client.push("bucket")


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"agents": {"ours": "new"}}, "$.settings.agents"),
        ({"agents": {"ours": 1}}, "$.settings.agents"),
        ({"agents": {"our/s": "1"}}, "$.settings.agents"),
        ({"agents": ["ours"]}, "$.settings.agents"),
        ({"agents": {f"p{n}": "1" for n in range(101)}}, "$.settings.agents"),
        ({"agents_only": 1}, "$.settings.agents_only"),
    ],
)
async def test_settings_that_are_none(admin: Admin, settings: dict[str, object], path: str) -> None:
    answer = await admin.ask_for("service.configure", service="dm_check", settings=settings)
    assert answer["code"] == "bad_message"
    assert answer["detail"]["path"].startswith(path)
