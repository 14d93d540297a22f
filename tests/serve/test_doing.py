"""Doings of clients, as the stats channel, `client.list` and `client.show` tell it."""

from __future__ import annotations

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Server
from tests.serve.tools import configure, eventually, execute

BACKING_OFF = """
UPDATE membership SET streak = 4, wait_until = now() + interval '1 hour' WHERE client_id = 'giver'"""


async def told(server: Server) -> dict[str, str]:
    """Return what each client does, as admins see it, once onlookers see the same."""
    admin, viewer = await server.admin(), await server.viewer()
    found: dict[str, str] = {}

    async def agree() -> bool:
        found.clear()
        found.update({row["client_id"]: row["doing"]["what"] for row in (await admin.ok("client.list"))["rows"]})
        page = await viewer.ok("get", topic="clients")
        return {row["client_id"]: row["doing"]["what"] for row in page["rows"]} == found

    await eventually(agree, "admins and onlookers are told the same")
    return found


async def test_each_client_is_told_of_by_what_it_does(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=3)
    server = await start_server()
    admin = await server.admin()
    await admin.add(9, services=["dm_check"])

    await (await server.volunteer("worker")).bucket()
    await server.volunteer("idler")
    limited = await server.volunteer("limited")
    await limited.ok("report", service="dm_check", kind="upstream_limited", retry_after=900)
    unable = await server.volunteer("unable")
    await unable.ok("report", service="dm_check", kind="cannot_work", retry_after=900)
    await server.volunteer("giver")
    await execute(database, BACKING_OFF)
    waiting = await server.volunteer("waiting")
    await admin.ok("service.pause", service="dm_check")
    await waiting.ok("ask", service="dm_check", count=1)
    gone = await server.volunteer("gone")
    await gone.close()

    expected = {
        "worker": "working",
        "idler": "idle",
        "limited": "limited",
        "unable": "unable",
        "giver": "backing_off",
        "waiting": "waiting",
        "gone": "offline",
    }

    async def as_expected() -> bool:
        return await told(server) == expected

    await eventually(as_expected, "the session that was closed has ended")
    shown = await admin.ok("client.show", client_id="limited")
    assert shown["doing"]["text"] == "its API takes no more requests for dm_check"
    assert shown["doing"]["until"] > shown["services"][0]["last_access"]


async def test_an_admin_sees_the_sessions_of_a_client(server: Server) -> None:
    for _ in range(2):
        await server.volunteer("ada", agent="checker/1.2")
    shown = await (await server.admin()).ok("client.show", client_id="ada")
    told = [(one["node"], one["address"], one["agent"]) for one in shown["sessions"]]
    assert told == [(server.node.settings.node_name, "127.0.0.1", "checker/1.2")] * 2
    assert shown["sessions"][0]["since"] >= shown["sessions"][1]["since"]


async def test_operators_see_why_a_client_was_deactivated_and_onlookers_that_it_was(server: Server) -> None:
    admin = await server.admin()
    for name in ("ada", "bob"):
        await server.volunteer(name)
    await admin.ok("client.deactivate", client_id="ada", reason="wrong results")
    await admin.ok("client.deactivate", client_id="bob", service="dm_check", reason="too slow")

    operator = await server.viewer(token=await server.token("operator"))
    for viewer, words in ((operator, ("wrong results", "too slow")), (await server.viewer(), ("by an admin",) * 2)):
        ada, bob = (await viewer.ok("get", topic="clients", filter={"sort": "client_id"}))["rows"]
        (of_service,) = bob["services"]
        assert (ada["state"], of_service["inactive"]) == ("deactivated", "admin")
        assert (ada["deactivated"], of_service["inactive_reason"]) == words
