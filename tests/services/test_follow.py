"""follower_check and following_check fill one graph, in parts too."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.model import ItemId
from coordinator.services.follow import graph as follow_graph
from coordinator.store.pool import Database
from tests.databases import Databases
from tests.harness import Admin, Message, Server, Volunteer

GRAPH = "SELECT follower, followed, first_claim, last_claim FROM follow ORDER BY 1, 2"


async def worker(server: Server, name: str = "worker") -> Volunteer:
    peer = await server.volunteer(name)
    await peer.ok("join", service="follower_check")
    await peer.ok("join", service="following_check", profile={"source": name})
    return peer


async def submit(peer: Volunteer, bucket: Message, *results: Message, final: bool = False) -> Message:
    return await peer.ask_for(
        "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=list(results), final=final
    )


def accounts(*keys: str) -> list[Message]:
    return [{"key": key} for key in keys]


async def graph(database: Database, sql: str = GRAPH) -> list[tuple[Any, ...]]:
    async with database.connection() as db:
        return [tuple(row) for row in await db.fetch(sql)]


async def test_both_fill_one_graph(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "ada"}])
    peer = await worker(server)
    followers, following = await peer.bucket("follower_check"), await peer.bucket("following_check")
    ada = followers["items"][0]["item"]
    stored = await submit(peer, followers, {"item": ada, "accounts": accounts("bob", "eve")})
    assert (stored["stored"], stored["closed"]) == (1, True)
    result = {"item": ada, "accounts": [{"key": "bob", "attributes": {"n": 1}}], "complete": True}
    assert (await submit(peer, following, result))["stored"] == 1
    a, b = followers["claim"], following["claim"]
    assert await graph(database) == [("ada", "bob", b, b), ("bob", "ada", a, a), ("eve", "ada", a, a)]
    named = await graph(database, "SELECT key, attributes->>'n' FROM follow_account_told ORDER BY key")
    assert named == [("ada", None), ("bob", "1"), ("eve", None)]
    shown = await admin.ok("item.show", key="ada")
    values = {one["service"]: one["results"][0]["value"] for one in shown["services"] if one["results"]}
    assert values["follower_check"] == {"accounts": accounts("bob", "eve")}
    again = await submit(peer, followers, {"item": ada, "accounts": accounts("bob", "eve"), "complete": True})
    assert again["duplicate"] is True
    assert (await submit(peer, followers, {"item": ada, "accounts": []}))["code"] == "conflict"


async def test_parts_of_ten_thousand(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "star"}, {"key": "other"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")
    star = next(one["item"] for one in bucket["items"] if one["key"] == "star")
    other = next(one["item"] for one in bucket["items"] if one["key"] == "other")
    for start in (0, 10_000, 20_000, 10_000):  # the last one is a repeat, and harmless
        fans = accounts(*(f"fan{n}" for n in range(start, start + 10_000)))
        part = {"item": star, "complete": False, "accounts": fans}
        stored = await submit(peer, bucket, part)
        assert (stored["stored"], stored["remaining"], stored["closed"], stored["duplicate"]) == (1, 2, False, False)
    state = (await admin.ok("item.show", key="star"))["services"][0]
    assert (state["state"], state["results"]) == ("claimed", [])
    last = {"item": star, "accounts": accounts("last")}
    mixed = await submit(peer, bucket, last, {"item": other, "complete": False, "accounts": accounts("x")})
    assert (mixed["stored"], mixed["remaining"], mixed["closed"]) == (2, 1, False)
    assert await graph(database, "SELECT count(*) FROM follow WHERE followed = 'star'") == [(30_001,)]
    # A final submit of parts alone puts the item back.
    back = await submit(peer, bucket, {"item": other, "complete": False, "accounts": []}, final=True)
    assert (back["stored"], back["remaining"], back["closed"]) == (1, 1, True)
    late = await submit(peer, bucket, {"item": other, "complete": False, "accounts": []})
    assert late["code"] == "stale_claim"


async def test_parts_keep_a_bucket_alive(server: Server, admin: Admin) -> None:
    await admin.ok("service.configure", service="follower_check", settings={"dead_after": 1})
    await admin.ok("item.add", items=[{"key": "star"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")
    part = {"item": bucket["items"][0]["item"], "complete": False, "accounts": accounts("x")}
    assert (await peer.push("bucket_dead"))["bucket_id"] == bucket["bucket_id"]
    assert (await submit(peer, bucket, part))["stored"] == 1
    assert (await admin.ok("bucket.show", bucket_id=bucket["bucket_id"]))["state"] == "claimed"


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({}, "Object missing required field `accounts`"),
        ({"missing": True, "accounts": []}, "`missing` stands alone"),
        ({"missing": True, "complete": False}, "`missing` stands alone"),
        ({"accounts": [{"name": "x"}]}, None),
        ({"accounts": [{"key": ""}]}, None),
        ({"accounts": "x"}, None),
        ({"missing": False}, None),
    ],
)
async def test_wrong_results(server: Server, admin: Admin, result: Message, reason: str | None) -> None:
    await admin.ok("item.add", items=[{"key": "ada"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")
    answer = await submit(peer, bucket, {"item": bucket["items"][0]["item"], **result})
    assert answer["code"] == "bad_result", answer
    if reason:
        assert answer["detail"]["errors"][0]["reason"] == reason
    gone = await submit(peer, bucket, {"item": bucket["items"][0]["item"], "missing": True})
    assert gone["stored"] == 1


async def test_only_accounts_that_are_small_enough_concern_them(admin: Admin) -> None:
    items: list[Message] = [
        {"key": "unknown"},
        {"key": "small", "followers": 1000, "following": "1000"},
        {"key": "loved", "followers": 1001, "following": 5},
        {"key": "curious", "followers": 5, "following": "1001"},
    ]
    await admin.ok("item.add", items=items)
    joined = {
        item["key"]: {one["service"] for one in (await admin.ok("item.show", key=item["key"]))["services"]}
        for item in items
    }
    both = {"dm_check", "follower_check", "following_check"}
    assert joined == {
        "unknown": both,
        "small": both,
        "loved": both - {"follower_check"},
        "curious": both - {"following_check"},
    }


async def test_deleted_items_leave_no_edge(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "ada"}, {"key": "bob"}], services=["following_check"])
    peer = await worker(server)
    bucket = await peer.bucket("following_check")
    results = [{"item": one["item"], "accounts": accounts("x")} for one in bucket["items"]]
    await submit(peer, bucket, *results)
    await admin.ok("item.delete", keys=["ada"])
    assert [row[:2] for row in await graph(database)] == [("bob", "x")]


async def test_parts_do_not_count_as_settled(server: Server, admin: Admin) -> None:
    await admin.ok("item.add", items=[{"key": "star"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")
    item = bucket["items"][0]["item"]
    for number in range(3):
        stored = await submit(peer, bucket, {"item": item, "complete": False, "accounts": accounts(f"fan{number}")})
        assert stored["stored"] == 1
    await server.node.parts.statistics.recorder.write()
    (row,) = [row for row in (await admin.ok("client.show", client_id=peer.client_id))["services"] if row["assigned"]]
    assert row["settled"] == 0
    assert server.node.parts.core.counters.settled_items() == 0


async def test_what_a_liar_said_of_an_account_goes_with_its_claim(
    server: Server, admin: Admin, database: Database
) -> None:
    """An honest value is there again once the liar's is taken back, and not lost."""
    await admin.ok("item.add", items=[{"key": "ada"}, {"key": "bob"}], services=["follower_check"])
    await admin.ok("service.configure", service="follower_check", settings={"bucket_size": 1})

    async def tell(name: str, size: int) -> None:
        peer = await worker(server, name)
        bucket = await peer.bucket("follower_check")
        account = {"key": "eve", "attributes": {"size": size}}
        stored = await submit(peer, bucket, {"item": bucket["items"][0]["item"], "accounts": [account]}, final=True)
        assert stored["stored"] == 1

    told = "SELECT attributes->>'size' FROM follow_account_told WHERE key = 'eve'"
    await tell("honest", 7)
    await tell("liar", 666)
    assert await graph(database, told) == [("666",)]
    taken = await admin.ok("result.invalidate", client_id="liar", dry_run=False, requeue=False)
    assert await graph(database, told) == [("7",)]
    await admin.ok("result.reinstate", invalidation_id=taken["invalidation_id"])
    assert await graph(database, told) == [("666",)]
    await admin.ok("item.delete", keys=["ada", "bob"])
    assert await graph(database, "SELECT count(*) FROM follow_told") == [(0,)]


async def test_parts_that_add_nothing_keep_no_bucket_alive(server: Server, admin: Admin) -> None:
    await admin.ok("service.configure", service="follower_check", settings={"dead_after": 1})
    await admin.ok("item.add", items=[{"key": "star"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")
    item = bucket["items"][0]["item"]
    await submit(peer, bucket, {"item": item, "complete": False, "accounts": accounts("x")})
    await peer.push("bucket_dead")
    for repeated in (accounts("x"), []):
        assert (await submit(peer, bucket, {"item": item, "complete": False, "accounts": repeated}))["stored"] == 1
        assert (await admin.ok("bucket.show", bucket_id=bucket["bucket_id"]))["state"] == "dead"
    await submit(peer, bucket, {"item": item, "complete": False, "accounts": accounts("y")})
    assert (await admin.ok("bucket.show", bucket_id=bucket["bucket_id"]))["state"] == "claimed"


async def test_parts_accounts_and_bytes_of_a_result_are_limited_by_the_service(server: Server, admin: Admin) -> None:
    await admin.ok(
        "service.configure",
        service="follower_check",
        settings={"max_parts": 2, "max_accounts": 3, "max_result_bytes": 256},
    )
    await admin.ok("item.add", items=[{"key": "star"}], services=["follower_check"])
    peer = await worker(server)
    bucket = await peer.bucket("follower_check")
    item = bucket["items"][0]["item"]

    async def refused(*keys: str, **attributes: str) -> tuple[str, str]:
        many = [{"key": key, "attributes": attributes} for key in keys]
        answer = await submit(peer, bucket, {"item": item, "complete": False, "accounts": many})
        return answer["code"], answer["detail"]["errors"][0]["reason"]

    assert await refused("a", "b", "c", "d") == ("bad_result", "it has 4 accounts, 3 at most are taken")
    code, reason = await refused("a", text="é" * 120)
    assert (code, reason.endswith("bytes, 256 at most are taken")) == ("bad_result", True)
    for key in ("a", "b"):
        await submit(peer, bucket, {"item": item, "complete": False, "accounts": accounts(key)})
    third = await submit(peer, bucket, {"item": item, "complete": False, "accounts": accounts("c")})
    (error,) = third["detail"]["errors"]
    assert (third["code"], error["item"], error["reason"]) == ("bad_result", item, "one claim takes 2 parts at most")
    assert (await submit(peer, bucket, {"item": item, "accounts": accounts("c")}, final=True))["closed"]


async def test_the_neighbours_of_an_account_are_told_mutual_ones_first_and_bounded(
    server: Server, admin: Admin, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.ok("item.add", items=[{"key": "ada"}, {"key": "zoe"}])
    peer, viewer = await worker(server), await server.viewer()
    followers, following = await peer.bucket("follower_check"), await peer.bucket("following_check")
    items = {one["key"]: one["item"] for one in followers["items"]}
    ada = items["ada"]

    async def around(item: int, limit: int = 5) -> list[Message]:
        return list((await viewer.ok("get", topic="neighbours", filter={"item": item}, limit=limit))["rows"])

    assert await around(ada, limit=1) == []  # a page of its own: the other one is not kept from before
    await submit(peer, followers, {"item": ada, "accounts": accounts("bob", "@Zoe", "eve")})
    await submit(peer, following, {"item": ada, "accounts": accounts("bob", "carl")})
    (found,) = await around(ada)
    told = {one["key"]: (one["item"], one["follows"], one["followed"]) for one in found.pop("neighbours")}
    assert next(iter(told)) == "bob"
    assert told == {
        "bob": (None, True, True),
        "zoe": (items["zoe"], True, False),
        "eve": (None, True, False),
        "carl": (None, False, True),
    }
    assert found == {"item": ada, "followers": 3, "following": 2, "mutual": 1, "complete": True}
    ((zoe,),) = [one["neighbours"] for one in await around(items["zoe"])]
    assert zoe == {"key": "ada", "item": ada, "follows": False, "followed": True}

    async with database.connection() as db:
        monkeypatch.setattr(follow_graph, "SIGHTINGS_LOOKED_AT", 2)
        cut = await follow_graph.around(db, ItemId(ada), 1)
        assert cut is not None
        assert (len(cut.ties), cut.followers, cut.complete) == (1, 2, False)
    await admin.ok("result.invalidate", client_id="worker", service="follower_check", dry_run=False, requeue=False)
    async with database.connection() as db:
        left = await follow_graph.around(db, ItemId(ada), 9)
    assert left is not None
    assert (left.followers, left.following) == (0, 2)
    assert await viewer.refused("get", topic="neighbours") == "bad_message"
    assert await viewer.refused("get", topic="neighbours", filter={"item": ada}, after="x") == "bad_message"


async def test_accounts_are_looked_up_one_by_one_though_there_were_few_when_the_plan_was_made(
    databases: Databases,
) -> None:
    """Else a part of ten thousand accounts was compared with the ten thousand before it, for ten seconds."""
    database = Database(await databases.create("few_accounts"))
    await database.open()
    async with database.connection() as db:
        await db.execute("INSERT INTO follow_account (key) VALUES ('star')")
        await db.execute("ANALYZE follow_account")
        for statement, parameters in ((follow_graph._TELL, 4), (follow_graph._ADD_EDGES, 6)):
            await db.execute(f"PREPARE looked_at AS {statement}")
            plan = await db.fetch(f"EXPLAIN EXECUTE looked_at ({', '.join(['NULL'] * parameters)})")
            await db.execute("DEALLOCATE looked_at")
            lines = "\n".join(row[0] for row in plan)
            assert lines.count("Scan using follow_account_canonical") == lines.count("Index Cond") > 0, lines
    await database.close()
    await databases.drop("few_accounts")
