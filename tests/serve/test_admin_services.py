"""Services are added, changed, paused, revoked and restored while clients are connected."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import PATIENCE, Admin, Message, Server, Volunteer

ALIVE = {
    "type": "object",
    "required": ["alive"],
    "additionalProperties": False,
    "properties": {"alive": {"type": "boolean"}},
}
LINKS: dict[str, Any] = {"service": "links", "plugin": "generic", "settings": {"result_schema": ALIVE}}


async def state_of(admin: Admin, service: str) -> Message:
    shown = await admin.ok("service.show", service=service)
    return {name: value for name, value in shown.items() if name != "ref"}


async def until_waiting(admin: Admin, service: str, count: int) -> None:
    """Wait until so many items of a service are waiting or in ready buckets."""
    async with asyncio.timeout(20):
        while True:
            shown = await admin.ask_for("service.show", service=service)
            counts = shown.get("counts", {"waiting": 0, "ready": 0})  # it may not be known there yet
            if counts["waiting"] + counts["ready"] == count:
                return
            await asyncio.sleep(0.05)


async def test_a_new_data_folder_has_the_three_services(admin: Admin) -> None:
    rows = (await admin.ok("service.list"))["rows"]
    assert [(row["service"], row["state"]) for row in rows] == [
        ("dm_check", "active"),
        ("follower_check", "active"),
        ("following_check", "active"),
    ]


@pytest.mark.parametrize("state", ["paused", "revoked"])
async def test_items_for_all_services_pass_over_one_that_another_node_has_just_stopped(
    admin: Admin, database: Database, state: str
) -> None:
    """The node may not have received the signal yet; the database has the new state."""
    async with database.connection() as db:
        await db.execute("UPDATE service SET state = $1 WHERE name = 'dm_check'", state)
        await admin.add(2)
        rows = await db.fetch(
            "SELECT s.name, count(*) AS n FROM enrolled_item JOIN service s USING (service_id) GROUP BY 1"
        )
    assert {row["name"]: row["n"] for row in rows} == {"follower_check": 2, "following_check": 2}


async def test_a_service_is_added_while_clients_are_connected(admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(30)
    added = await admin.ok("service.add", **LINKS)
    assert {name: added[name] for name in ("service", "plugin", "title", "state")} == {
        "service": "links",
        "plugin": "generic",
        "title": "Generic check",
        "state": "active",
    }
    assert added["settings"]["bucket_size"] == 180
    assert await volunteer.push("service") == {"type": "service", "service": "links", "state": "active"}
    cards = {card["service"]: card for card in (await volunteer.ok("services"))["services"]}
    assert cards["links"]["result_schema"] == ALIVE
    assert cards["links"]["joined"] is False
    await volunteer.ok("join", service="links")
    bucket = await volunteer.bucket("links")
    assert len(bucket["items"]) == 30
    results = [{"item": one["item"], "alive": True} for one in bucket["items"]]
    bad = await volunteer.ask_for(
        "submit",
        bucket_id=bucket["bucket_id"],
        claim=bucket["claim"],
        final=True,
        results=[{**results[0], "alive": "yes"}, *results[1:]],
    )
    assert bad["code"] == "bad_result"
    assert bad["detail"]["errors"] == [
        {"item": results[0]["item"], "reason": '"yes" is not of type "boolean"', "path": "$.results[0].alive"}
    ]
    stored = await volunteer.ok(
        "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], final=True, results=results
    )
    assert stored["stored"] == 30
    rows = (await admin.ok("result.list", service="links"))["rows"]
    assert {tuple(row["value"].items()) for row in rows} == {(("alive", True),)}


async def test_a_name_is_taken_once_and_a_plugin_must_be_there(admin: Admin) -> None:
    await admin.ok("service.add", **LINKS)
    assert await admin.refused("service.add", **LINKS) == "exists"
    assert await admin.refused("service.add", service="other", plugin="nope") == "not_found"
    await admin.ok("service.revoke", service="links")
    assert await admin.refused("service.add", **LINKS) == "exists"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"dead_after": 0.5}, "$.settings.dead_after"),
        ({"dead_after": "1"}, "$.settings.dead_after"),
        ({"dead_after": True}, "$.settings.dead_after"),
        ({"release_after": -1}, "$.settings.release_after"),
        ({"idle_after": 1e12}, "$.settings.idle_after"),
        ({"recheck_after": 0}, "$.settings.recheck_after"),
        ({"bucket_size": 0}, "$.settings.bucket_size"),
        ({"bucket_size": 10_001}, "$.settings.bucket_size"),
        ({"bucket_size": 1.5}, "$.settings.bucket_size"),
        ({"max_buckets_per_ask": 0}, "$.settings.max_buckets_per_ask"),
        ({"max_held_buckets": 0}, "$.settings.max_held_buckets"),
        ({"max_head_start": -1}, "$.settings.max_head_start"),
        ({"dead_afterwards": 5}, "$.settings.dead_afterwards"),
        ({"result_schema": ALIVE}, "$.settings.result_schema"),
    ],
)
async def test_a_wrong_setting_is_named(admin: Admin, settings: Message, path: str) -> None:
    before = await state_of(admin, "dm_check")
    answer = await admin.ask_for("service.configure", service="dm_check", settings={"bucket_size": 7, **settings})
    assert (answer["code"], answer["detail"]["path"]) == ("bad_message", path)
    assert await state_of(admin, "dm_check") == before


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"result_schema": None},
        {"result_schema": 5},
        {"result_schema": {"type": "strin"}},
        {"result_schema": {"$ref": "http://127.0.0.1:9/schema"}},
        {"result_schema": {"properties": {"a": {"pattern": "(?=x)"}}}},
    ],
)
async def test_generic_needs_a_schema_that_can_be_used(admin: Admin, settings: Message) -> None:
    answer = await admin.ask_for("service.add", service="links", plugin="generic", settings=settings)
    assert (answer["code"], answer["detail"]["path"]) == ("bad_message", "$.settings.result_schema")
    assert await admin.refused("service.show", service="links") == "not_found"


async def test_configure_merges_and_null_takes_back(admin: Admin, volunteer: Volunteer) -> None:
    first = await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 7, "dead_after": 1.5})
    assert (first["settings"]["bucket_size"], first["settings"]["dead_after"]) == (7, 1.5)
    assert (await volunteer.push("service"))["state"] == "active"
    second = await admin.ok("service.configure", service="dm_check", settings={"bucket_size": None})
    assert (second["settings"]["bucket_size"], second["settings"]["dead_after"]) == (180, 1.5)


async def test_a_changed_time_is_in_force_within_a_second(
    start_server: StartServer, admin: Admin, server: Server
) -> None:
    other = await start_server(node_name="other")
    await admin.add(3)
    volunteer = await other.volunteer("far")
    bucket = await volunteer.bucket()
    await asyncio.sleep(1.1)
    await admin.ok("service.configure", service="dm_check", settings={"dead_after": 1})
    assert (await volunteer.push("service"))["service"] == "dm_check"
    dead = await volunteer.push("bucket_dead", 1.5)
    assert dead["bucket_id"] == bucket["bucket_id"]


async def test_paused_asks_wait_and_submits_count(admin: Admin, volunteer: Volunteer) -> None:
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 5})
    await volunteer.push("service")
    await admin.add(10)
    bucket = await volunteer.bucket()
    assert (await admin.ok("service.pause", service="dm_check"))["state"] == "paused"
    assert (await volunteer.push("service"))["state"] == "paused"
    asked = await volunteer.ok("ask", service="dm_check", count=1)
    assert asked["pending"] == 1
    assert await volunteer.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    assert (await volunteer.submit(bucket))["stored"] == 5
    assert volunteer.pushes.empty()
    await admin.ok("service.resume", service="dm_check")
    assert (await volunteer.push("service"))["state"] == "active"
    assert len((await volunteer.push("bucket"))["items"]) == 5


async def test_revoked_takes_what_is_held_and_restore_brings_it_back(
    start_server: StartServer, admin: Admin, volunteer: Volunteer
) -> None:
    other = await start_server(node_name="other")
    far = await other.volunteer("far")
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 5})
    await volunteer.push("service")
    await far.push("service")
    await admin.add(15)
    done, held = await volunteer.bucket(), await volunteer.bucket()
    lost = await far.bucket()
    await volunteer.submit(done)
    await far.ok("ask", service="dm_check", count=1)
    revoked = await admin.ok("service.revoke", service="dm_check")
    assert (revoked["state"], revoked["released"]) == ("revoked", 2)
    for peer, bucket in ((volunteer, held), (far, lost)):
        pushes = [await peer.pushes.get() for _ in range(2)]
        assert {"type": "service", "service": "dm_check", "state": "revoked"} in pushes
        assert {
            "type": "bucket_lost",
            "bucket_id": bucket["bucket_id"],
            "claim": bucket["claim"],
            "reason": "revoked",
        } in pushes
    assert await far.refused("ask", service="dm_check", count=1) == "service_revoked"
    assert (await volunteer.submit(held))["code"] == "service_revoked"
    assert await volunteer.refused("join", service="dm_check", profile={"source": "a"}) == "service_revoked"
    assert await admin.refused("service.pause", service="dm_check") == "service_revoked"
    assert await admin.refused("service.resume", service="dm_check") == "service_revoked"
    assert len((await admin.ok("result.list", service="dm_check"))["rows"]) == 5
    assert (await admin.ok("service.revoke", service="dm_check"))["released"] == 0
    assert (await admin.ok("service.restore", service="dm_check"))["state"] == "active"
    for peer in (volunteer, far):
        assert (await peer.push("service"))["state"] == "active"
    again = await far.bucket()  # the ask of before is forgotten: one bucket, not two
    assert len(again["items"]) == 5
    await asyncio.sleep(0.2)
    assert far.pushes.empty()
    # What was taken from it counts as nothing: its claim is stale, and the bucket is for anyone.
    assert (await volunteer.submit(held))["code"] in ("stale_claim", "not_owner")


async def test_a_new_service_comes_through_a_large_catalogue(
    admin: Admin, database: Database, volunteer: Volunteer
) -> None:
    async with database.connection() as db:
        await db.execute("INSERT INTO item (key) SELECT 'k' || n FROM generate_series(1, 23000) n")
        await db.execute(
            """INSERT INTO item (key, attributes)
               SELECT 'big' || n, '{"following": 5000}' FROM generate_series(1, 100) n"""
        )
    await admin.ok("service.add", service="second", plugin="following_check")
    await admin.add(5, "later", services=["dm_check"])
    await until_waiting(admin, "second", 23_000)
    await admin.add(5, "last")
    await until_waiting(admin, "second", 23_005)
    async with asyncio.timeout(PATIENCE), database.connection() as db:
        # The last look at the catalogue finds nothing, and only then is the place in it forgotten.
        while await db.fetchval("SELECT count(*) FROM service_fill"):  # noqa: ASYNC110 - the event is the database's
            await asyncio.sleep(0.02)


async def test_a_fill_goes_on_where_a_crash_left_it(
    start_server: StartServer, database: Database, server: Server
) -> None:
    admin = await server.admin()
    await admin.add(100, services=["dm_check"])
    async with database.connection() as db:
        service = await db.fetchval(
            "INSERT INTO service (name, plugin, title) VALUES ('third', 'dm_check', 'Third') RETURNING service_id"
        )
        first = await db.fetchval("SELECT min(item_id) FROM item")
        await db.execute("INSERT INTO service_fill VALUES ($1, $2, $3)", service, first + 49, first + 99)
    await start_server(node_name="other")
    other = await server.admin()
    await until_waiting(other, "third", 50)


async def test_items_that_are_added_meanwhile_are_neither_missed_nor_forced_upon_a_new_service(
    server: Server, start_server: StartServer
) -> None:
    other = await start_server(node_name="other")
    admins = [await server.admin(), await other.admin()]
    adding = [
        asyncio.ensure_future(admin.add(1, f"n{place}x{n}x")) for n in range(40) for place, admin in enumerate(admins)
    ]
    await admins[0].ok("service.add", **LINKS)
    await asyncio.gather(*adding)
    await until_waiting(admins[0], "links", 80)


async def test_forgetting_a_secret(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(3)
    bucket = await volunteer.bucket()
    assert await admin.ok("client.forget_secret", client_id="volunteer") == {
        "type": "ok",
        "ref": 3,
        "forgotten": 1,
        "released": 1,
    }
    lost = await volunteer.push("bucket_lost")
    assert (lost["bucket_id"], lost["reason"]) == (bucket["bucket_id"], "released")
    assert await volunteer.refused("ask", service="dm_check", count=1) == "not_registered"
    heir = await server.client()
    welcome = await heir.ok("hello", protocol=1, client_id="volunteer", secret="x" * 40)
    assert welcome["registered"] is False
    await heir.ok("register", screen_name="heir")
    assert await volunteer.refused("register", screen_name="volunteer") == "unauthorized"
    assert await admin.refused("client.forget_secret", client_id="nobody") == "not_found"


@pytest.mark.long
async def test_clients_work_on_while_services_come_and_go(start_server: StartServer) -> None:
    """Nobody is disconnected, nothing acknowledged is lost, nobody gets work of a service after it was revoked."""
    server = await start_server(registrations_per_minute=10_000)
    admin = await server.admin()
    dice = random.Random(4)
    names = ["one", "two", "three"]
    for name in names:
        await admin.ok("service.add", service=name, plugin="dm_check", settings={"bucket_size": 5})
    await admin.add(3000, services=names)
    over = asyncio.Event()
    revocations = 0

    async def work(peer: Volunteer) -> int:
        done = 0
        revoked: set[str] = set()
        for name in names:
            peer.send("ask", service=name, count=1)
        while not (over.is_set() and peer.pushes.empty()):
            try:
                push = await within(peer.pushes.get(), 0.5)
            except TimeoutError:
                for name in names:
                    peer.send("ask", service=name, count=1)
                continue
            if push["type"] == "service" and push["service"] in names:
                (revoked.add if push["state"] == "revoked" else revoked.discard)(push["service"])
            if push["type"] == "bucket":
                assert push["service"] not in revoked
                await asyncio.sleep(dice.random() / 2)
                stored = await peer.submit(push)
                if stored["type"] == "stored":
                    done += stored["stored"]
                else:
                    assert stored["code"] in ("service_revoked", "stale_claim", "not_owner"), stored
                peer.send("ask", service=push["service"], count=1)
        return done

    async def meddle() -> None:
        nonlocal revocations
        for n in range(32):
            name = dice.choice(names)
            match n % 8:
                case 0 | 4:
                    await admin.ok("service.revoke", service=name)
                    revocations += 1
                    await asyncio.sleep(0.1)
                    await admin.ok("service.restore", service=name)
                case 1 | 5:
                    await admin.ok("service.pause", service=name)
                    await admin.ok("service.resume", service=name)
                case 2 | 3 | 6:
                    size = dice.randrange(1, 10)
                    await admin.ok("service.configure", service=name, settings={"bucket_size": size})
                case _:
                    await admin.ok("service.add", service=f"more{n}", plugin="dm_check")
            await asyncio.sleep(0.1)
        over.set()

    peers = []
    for n in range(100):
        peer = await server.client()
        await peer.hello(f"worker{n}")
        choices = [{"service": name, "profile": {"source": "a"}} for name in names]
        await peer.ok("register", screen_name=f"worker{n}", services=choices)
        peers.append(peer)
    async with asyncio.TaskGroup() as group:
        group.create_task(meddle())
        working = [group.create_task(work(peer)) for peer in peers]
    acknowledged = sum(task.result() for task in working)
    async with server.database.connection() as db:
        assert await db.fetchval("SELECT count(*) FROM result") == acknowledged
    assert acknowledged > 1000
    assert revocations == 8
    assert all(peer.connection.state.name == "OPEN" for peer in peers)
