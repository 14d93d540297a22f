"""Accounts that results show become items, with the result, each once, where the service is set to do so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.services import hooks
from coordinator.store import adding
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer

SERVICES = ["dm_check", "follower_check", "following_check"]


async def select(database: Database, sql: str) -> list[tuple[Any, ...]]:
    async with database.connection() as db:
        return [tuple(row) for row in await db.fetch(sql)]


async def keys(database: Database) -> list[str]:
    return [key for (key,) in await select(database, "SELECT key FROM item ORDER BY key")]


async def discovering(admin: Admin, *services: str) -> None:
    for service in services or ("follower_check",):
        await admin.ok("service.configure", service=service, settings={"discover": "on"})


async def worker(server: Server, name: str = "worker", *services: str) -> Volunteer:
    peer = await server.volunteer(name)
    for service in services or ("follower_check",):
        await peer.ok("join", service=service)
    return peer


async def submit(peer: Volunteer, bucket: Message, *accounts: str, **more: Any) -> Message:
    results = [{"item": bucket["items"][0]["item"], "accounts": [{"key": key} for key in accounts], **more}]
    return await peer.ask_for(
        "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=results, final=False
    )


async def test_nothing_is_discovered_unless_it_is_switched_on(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "ada"}], services=["follower_check"])
    peer = await worker(server)
    assert (await submit(peer, await peer.bucket("follower_check"), "bob"))["stored"] == 1
    assert await keys(database) == ["ada"]


async def test_accounts_become_items_where_all_are_taken(server: Server, admin: Admin, database: Database) -> None:
    await discovering(admin)
    await admin.ok("service.configure", service="following_check", settings={"enrol": "named"})
    await admin.ok("item.add", items=[{"key": "Ada"}, {"key": "known"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")
    ada = next(item for item in bucket["items"] if item["key"] == "Ada")["item"]
    bucket["items"] = [{"item": ada}]
    stored = await submit(peer, bucket, "Bob", "@bob", "ADA", "Known", "x y")
    assert stored["stored"] == 1

    assert await keys(database) == ["Ada", "Bob", "known", "x y"]
    joined = await select(
        database,
        "SELECT i.key, s.name FROM enrolled_item JOIN item i USING (item_id) JOIN service s USING (service_id) "
        "WHERE i.found_by IS NOT NULL ORDER BY 1, 2",
    )
    assert joined == [(key, service) for key in ("Bob", "x y") for service in ("dm_check", "follower_check")]
    numbers = await select(database, "SELECT max(item_id) - min(item_id) FROM item")
    assert numbers == [(3,)]  # known keys take no number

    shown = await admin.ok("item.show", key="@BOB")
    origin = {"item": ada, "service": "follower_check", "client_id": "worker", "claim": bucket["claim"]}
    assert shown["found"] == origin
    assert (await admin.ok("item.show", key="known"))["found"] is None
    assert (await admin.ok("item.add", items=[{"key": "bob"}]))["known"] == 1


async def test_parts_and_many_nodes_add_each_account_once(start_server: StartServer, database: Database) -> None:
    first = await start_server()
    admin = await first.admin()
    await discovering(admin, "follower_check", "following_check")
    for service in ("follower_check", "following_check"):
        await admin.ok("service.configure", service=service, settings={"bucket_size": 1, "max_accounts": 400})
    servers = [first, await start_server(node_name="other")]  # which finds the services as they are set
    await admin.ok("item.add", items=[{"key": f"a{n}"} for n in range(4)], services=SERVICES[1:])

    async def work(place: int) -> None:
        service = SERVICES[1 + place % 2]
        peer = await worker(servers[place % 2], f"w{place}", service)
        bucket = await peer.bucket(service)
        for start in (0, 100):
            names = [f"{'F' if place % 3 else 'f'}{(n * 37 + place) % 200 + start}" for n in range(200)]
            answer = await submit(peer, bucket, *names, complete=False)
            while answer["type"] == "error" and answer["code"] == "unavailable":
                answer = await submit(peer, bucket, *names, complete=False)
            assert answer["stored"] == 1

    await asyncio.gather(*(work(place) for place in range(4)))
    assert await select(database, "SELECT count(*) FROM item WHERE found_by IS NOT NULL") == [(300,)]
    joined = await select(
        database,
        "SELECT s.name, count(*) FROM enrolled_item JOIN item i USING (item_id) JOIN service s USING (service_id) "
        "WHERE i.found_by IS NOT NULL GROUP BY 1 ORDER BY 1",
    )
    assert joined == [(service, 300) for service in SERVICES]


async def test_who_waits_for_work_gets_what_is_discovered(server: Server, admin: Admin) -> None:
    await discovering(admin)
    await admin.ok("item.add", items=[{"key": "ada"}], services=["follower_check"])
    peer, waiting = await worker(server), await server.volunteer("waiting")
    assert (await waiting.ok("ask", service="dm_check", count=1, wait=True))["pending"] == 1
    assert (await submit(peer, await peer.bucket("follower_check"), "bob"))["stored"] == 1
    pushed = await waiting.push("bucket")
    assert [item["key"] for item in pushed["items"]] == ["bob"]


async def test_items_come_with_the_result_or_not_at_all(
    server: Server, admin: Admin, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await discovering(admin)
    await admin.ok("item.add", items=[{"key": "ada"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")

    async def fail(*_: object) -> int:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(adding, "join", fail)
        assert (await submit(peer, bucket, "bob"))["code"] == "internal"
    assert await keys(database) == ["ada"]
    assert await select(database, "SELECT count(*) FROM result") == [(0,)]

    assert (await submit(peer, bucket, "bob"))["stored"] == 1
    assert (await submit(peer, bucket, "eve"))["code"] == "conflict"
    assert await keys(database) == ["ada", "bob"]


async def test_a_result_shows_a_bounded_number_of_items(
    server: Server, admin: Admin, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hooks.MAX_DISCOVERED == 10_000
    monkeypatch.setattr(hooks, "MAX_DISCOVERED", 3)
    await discovering(admin)
    await admin.ok("item.add", items=[{"key": "ada"}], services=["follower_check"])
    peer = await worker(server)
    assert (await submit(peer, await peer.bucket("follower_check"), *"abcdef"))["stored"] == 1
    assert await keys(database) == ["a", "ada", "b", "c"]


async def test_a_plugin_that_finds_nothing_cannot_be_told_to(admin: Admin) -> None:
    answer = await admin.ask_for("service.configure", service="dm_check", settings={"discover": "on"})
    assert (answer["code"], answer["detail"]["path"]) == ("bad_message", "$.settings.discover")
    assert (await admin.ok("service.configure", service="dm_check", settings={"discover": "off"}))["type"] == "ok"
