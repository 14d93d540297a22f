"""One account is one item, however its key is written: in requests, in filters, and in the follow graph."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from coordinator.keys import KeyForm
from coordinator.store import key_form
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server

ADA = ["ada", "Ada", "@ada", "https://x.com/ada", "https://mobile.twitter.com/ADA/?s=20"]


async def select(database: Database, sql: str) -> list[tuple[Any, ...]]:
    async with database.connection() as db:
        return [tuple(row) for row in await db.fetch(sql)]


async def start_with(form: KeyForm, start_server: StartServer, database: Database) -> Server:
    async with database.connection() as db:
        await key_form.choose(db, form)
    return await start_server()


async def submit(peer: Any, bucket: Message, **result: Any) -> Message:
    item = bucket["items"][0]["item"]
    answer: Message = await peer.ask_for(
        "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=[{"item": item, **result}], final=True
    )
    return answer


async def test_an_account_is_one_item(server: Server, admin: Admin, database: Database) -> None:
    first = await admin.ok("item.add", items=[{"key": "@Ada"}, {"key": "ada"}, {"key": "Bob"}])
    assert (first["added"], first["known"], first["refused"]) == (2, 0, [])
    again = await admin.ok("item.add", items=[{"key": key} for key in ("ADA", "https://x.com/bob", "eve")])
    assert (again["added"], again["known"]) == (1, 2)
    assert await select(database, "SELECT key, canonical FROM item ORDER BY item_id") == [
        ("Ada", "ada"), ("Bob", "bob"), ("eve", None),
    ]  # fmt: skip


async def test_many_at_once_are_one_item_each(admin: Admin, database: Database) -> None:
    """The way of many new items, by COPY, and behind it the way of known ones."""
    many = [{"key": f"{'Acc' if n % 2 else 'acc'}{n}"} for n in range(300)]
    assert (await admin.ok("item.add", items=many))["added"] == 300
    other = [{"key": f"@{item['key'].upper()}"} for item in many]
    answer = await admin.ok("item.add", items=other)
    assert (answer["added"], answer["known"]) == (0, 300)
    assert await select(database, "SELECT count(*), count(canonical) FROM item") == [(300, 150)]


async def test_an_account_is_found_however_it_is_written(server: Server, admin: Admin) -> None:
    await admin.ok("item.add", items=[{"key": "Ada"}, {"key": "Zoë Z"}], services=["dm_check"])
    peer = await server.volunteer("ada")
    viewer = await server.viewer()
    bucket = await peer.bucket("dm_check")
    assert {item["key"] for item in bucket["items"]} == {"Ada", "Zoë Z"}
    results = [{"item": item["item"], "dm": "DM"} for item in bucket["items"]]
    await peer.ok("submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=results, final=True)

    for key in [*ADA, "Zoe\u0308 Z"]:
        shown = (await admin.ok("item.show", key=key))["key"]
        assert shown == ("Zoë Z" if key[0] == "Z" else "Ada")
        listed = await admin.ok("result.list", service="dm_check", key=key)
        page = await viewer.ok("get", topic="results", filter={"service": "dm_check", "key": key})
        found = await viewer.ok("get", topic="items", filter={"key": key})
        assert [row["key"] for one in (listed, page, found) for row in one["rows"]] == [shown] * 3
    assert (await admin.ask_for("item.show", key="zoë z"))["code"] == "not_found"
    for prefix in ("AD", "@ad", "https://x.com/aD", "Zoe\u0308"):
        page = await viewer.ok("get", topic="items", filter={"prefix": prefix})
        assert [row["key"] for row in page["rows"]] == ["Zoë Z" if prefix[0] == "Z" else "Ada"], prefix
    assert (await viewer.ok("get", topic="items", filter={"key": "ada\u200b"}))["rows"] == []

    again = await admin.ok("item.prioritize", keys=["@ADA", "nobody", "ada\u200b"], service="dm_check")
    assert (again["prioritized"], again["unknown"]) == (1, ["nobody", "ada\u200b"])
    assert (await admin.ok("item.retry", keys=["ADA"], service="dm_check"))["unknown"] == ["ADA"]
    gone = await admin.ok("item.delete", keys=["https://twitter.com/ada", "@ada", "@nobody"])
    assert (gone["deleted"], gone["unknown"]) == (1, ["@nobody"])


async def test_quarantined_items_are_found_however_they_are_written(admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "Ada"}], services=["dm_check"])
    async with database.connection() as db:
        await db.execute("DELETE FROM waiting")
        await db.execute("INSERT INTO quarantine SELECT service_id, item_id, 3 FROM enrolled_item")
    answer = await admin.ok("item.retry", keys=["https://x.com/ADA", "bob"], service="dm_check")
    assert (answer["retried"], answer["unknown"]) == (1, ["bob"])


async def test_what_cannot_be_seen_is_refused_by_name(admin: Admin) -> None:
    answer = await admin.ok("item.add", items=[{"key": "ada\u200b"}, {"key": "ok"}, {"key": "a\u202eb"}])
    assert answer["added"] == 1
    assert [(one["index"], one["reason"]) for one in answer["refused"]] == [
        (0, "key: the invisible character U+200B ZERO WIDTH SPACE is refused"),
        (2, "key: the invisible character U+202E RIGHT-TO-LEFT OVERRIDE is refused"),
    ]


async def test_the_follow_graph_has_each_account_once(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "Ada"}], services=["follower_check", "following_check"])
    peer = await server.volunteer("peer")
    for service, found in (("follower_check", ["Bob", "@bob", "zoe\u0308"]), ("following_check", ["BOB", "zoë"])):
        await peer.ok("join", service=service)
        accounts = [{"key": key, "attributes": {"written": key}} for key in found]
        stored = await submit(peer, await peer.bucket(service), accounts=accounts)
        assert stored["stored"] == 1

    graph = await select(database, "SELECT follower, followed FROM follow ORDER BY follower")
    assert graph == [("Ada", "Bob"), ("Ada", "zoë"), ("Bob", "Ada"), ("zoë", "Ada")]
    told = await select(database, "SELECT key, attributes->>'written' FROM follow_account_told ORDER BY key")
    assert told == [("Ada", None), ("Bob", "BOB"), ("zoë", "zoë")]


async def test_an_account_that_cannot_be_seen_is_a_bad_result(server: Server, admin: Admin) -> None:
    await admin.ok("item.add", items=[{"key": "ada"}], services=["follower_check"])
    peer = await server.volunteer("peer")
    await peer.ok("join", service="follower_check")
    refused = await submit(peer, await peer.bucket("follower_check"), accounts=[{"key": "b"}, {"key": "b\u200b"}])
    assert refused["code"] == "bad_result"
    assert "accounts[1].key: the invisible character U+200B ZERO WIDTH SPACE" in json.dumps(refused["detail"])


async def test_exact_keys_are_compared_as_they_are(start_server: StartServer, database: Database) -> None:
    server = await start_with("exact", start_server, database)
    admin = await server.admin()
    answer = await admin.ok("item.add", items=[{"key": key} for key in [*ADA, "zoe\u0308", "zoë"]])
    assert (answer["added"], answer["known"]) == (len(ADA) + 1, 0)
    assert (await admin.ask_for("item.show", key="ADA"))["code"] == "not_found"
    await admin.ok("item.delete", keys=[*ADA[1:], "zoë"])

    peer = await server.volunteer("peer")
    await peer.ok("join", service="follower_check")
    stored = await submit(peer, await peer.bucket("follower_check"), accounts=[{"key": "Ada"}, {"key": "@ada"}])
    assert stored["stored"] == 1
    graph = await select(database, "SELECT follower, followed FROM follow ORDER BY follower")
    assert graph == [("@ada", "ada"), ("Ada", "ada")]


@pytest.mark.parametrize("form", ["handle", "exact"])
async def test_the_form_is_told(form: KeyForm, start_server: StartServer, database: Database) -> None:
    server = await start_with(form, start_server, database)
    assert (await (await server.admin()).ok("stats"))["key_form"] == form

    def readiness() -> Message:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.node.port}/readyz") as answer:
            return dict(json.load(answer))

    assert await asyncio.to_thread(readiness) == {"ready": True, "reasons": [], "key_form": form}


async def test_a_file_is_imported_by_the_form_of_the_database(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "accounts.csv"
    file.write_text("sep=;\nusername;followers\nAda;3\nbob;4\n@ada;5\nBOB;6\n")
    words = "item", "import", str(file), "--service", "dm_check"
    assert await server.command(*words) == [{"added": 2, "known": 0, "repeated": 2, "refused": 0}]
    assert await server.command(*words) == [{"added": 0, "known": 2, "repeated": 2, "refused": 0}]
    (shown,) = await server.command("item", "show", "ADA")
    assert (shown["key"], shown["attributes"]) == ("Ada", {"followers": 3})
