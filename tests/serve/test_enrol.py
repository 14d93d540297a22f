"""A service takes all items, or only those that are named for it."""

from __future__ import annotations

import asyncio

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import PATIENCE, Admin, Message, Server

SCHEMA = {"type": "object"}


async def items_of(database: Database, service: str) -> list[str]:
    async with database.connection() as db:
        rows = await db.fetch(
            "SELECT i.key FROM enrolled_item e JOIN item i USING (item_id) JOIN service s USING (service_id) "
            "WHERE s.name = $1 ORDER BY 1",
            service,
        )
    return [row["key"] for row in rows]


async def add_links(admin: Admin, enrol: str | None) -> Message:
    settings = {"result_schema": SCHEMA} | ({} if enrol is None else {"enrol": enrol})
    return await admin.ok("service.add", service="links", plugin="generic", settings=settings)


async def test_a_service_of_named_items_takes_those_alone(admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "before"}])
    assert (await add_links(admin, "named"))["settings"]["enrol"] == "named"
    async with database.connection() as db:
        assert await db.fetchval("SELECT count(*) FROM service_fill") == 0

    await admin.ok("item.add", items=[{"key": "all"}, {"key": "before"}])
    assert await items_of(database, "links") == []
    assert await items_of(database, "dm_check") == ["all", "before"]
    await admin.ok("item.add", items=[{"key": "named"}, {"key": "before"}], services=["links"])
    assert await items_of(database, "links") == ["before", "named"]
    await admin.ok("item.prioritize", keys=["all"], service="links")
    assert await items_of(database, "links") == ["all", "before", "named"]
    assert await items_of(database, "dm_check") == ["all", "before"]


async def test_enrol_can_be_changed(start_server: StartServer, database: Database) -> None:
    server = await start_server()
    other = await start_server(node_name="other")
    admin, there = await server.admin(), await other.admin()
    assert (await add_links(admin, None))["settings"]["enrol"] == "all"
    await there.ok("service.configure", service="links", settings={"enrol": "named"})
    await admin.ok("item.add", items=[{"key": "a"}])  # this node may not have heard of it; the database has
    assert await items_of(database, "links") == []
    await there.ok("service.configure", service="links", settings={"enrol": None})
    await admin.ok("item.add", items=[{"key": "b"}])
    assert await items_of(database, "links") == ["b"]
    answer = await admin.ask_for("service.configure", service="links", settings={"enrol": "some"})
    assert (answer["code"], answer["detail"]["path"]) == ("bad_message", "$.settings.enrol")


async def test_a_fill_rests_while_items_have_to_be_named(server: Server, admin: Admin, database: Database) -> None:
    """It goes on where it was once all items are taken again."""
    await admin.add(3, services=["dm_check"])
    async with database.connection() as db:
        await db.execute(
            """WITH new AS (INSERT INTO service (name, plugin, title, settings)
                            VALUES ('late', 'dm_check', 'Late', '{"enrol": "named"}') RETURNING service_id)
               INSERT INTO service_fill SELECT service_id, 0, 100 FROM new"""
        )
        await server.node.parts.core.catalogue.load(db)
    entry = server.node.parts.core.catalogue.get("late")
    await server.node.parts.administration.catalogue_fill._fill(entry)
    assert await items_of(database, "late") == []

    await admin.ok("service.configure", service="late", settings={"enrol": "all"})
    async with asyncio.timeout(PATIENCE):
        while len(await items_of(database, "late")) < 3:  # noqa: ASYNC110 - the event is the database's
            await asyncio.sleep(0.02)
