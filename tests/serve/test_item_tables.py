"""The tables of items, claims and results on the stats channel: each row is as SQL and `item.show` tell it."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.stats import item_tables
from coordinator.store import items, result_pages
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Message, Server
from tests.serve.test_stats_tables import pages
from tests.serve.tools import configure, execute, value


@pytest.fixture
async def server(start_server: StartServer, database: Database) -> Server:
    """A node on which ada has settled two buckets of three, bob one, and cleo holds one and gave one back."""
    await configure(database, bucket_size=3, newcomer_buckets=9)
    server = await start_server()
    await (await server.admin()).add(30, services=["dm_check"])
    for name, dm in (("ada", "DM"), ("bob", "NON_DM"), ("ada", "UNKNOWN")):
        volunteer = await server.volunteer(name)
        await volunteer.submit(await volunteer.bucket(), dm)
    cleo = await server.volunteer("cleo")
    returned = await cleo.bucket()
    await cleo.ok("release", bucket_id=returned["bucket_id"], claim=returned["claim"])
    await cleo.bucket()
    return server


async def test_items_are_found_by_state_key_number_and_bucket(server: Server, database: Database) -> None:
    admin, viewer = await server.admin(), await server.viewer(token=await server.token("operator"))
    listed = await pages(viewer, "items", limit=7)
    assert [row["key"] for row in listed] == sorted(f"account{n}" for n in range(30))
    for row in listed:
        shown = await admin.ok("item.show", key=row["key"])
        states = [(place["service"], place["state"]) for place in row["services"]]
        assert (row["item"], row["attributes"], row["found"]) == (shown["item"], shown["attributes"], None)
        assert states == [(place["service"], place["state"]) for place in shown["services"]]
        assert await pages(viewer, "items", item=row["item"]) == [row]
        assert await pages(viewer, "items", key=row["key"]) == [row]

    settled = await pages(viewer, "items", service="dm_check", state="settled")
    assert len(settled) == 9
    assert [row["key"] for row in await pages(viewer, "items", prefix="account1")] == sorted(
        f"account{n}" for n in (1, *range(10, 20))
    )
    (held,) = await pages(viewer, "buckets", client_id="cleo")
    inside = await pages(viewer, "items", bucket_id=held["bucket_id"])
    assert [place["state"] for row in inside for place in row["services"]] == ["claimed"] * 3
    assert await pages(viewer, "buckets", item=inside[0]["item"]) == [{**held, "age": _any(held["age"])}]
    assert await pages(viewer, "items", key="nobody") == await pages(viewer, "items", item=10**9) == []


class _any(float):
    """An age, which grows from one look to the next."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float)

    __hash__ = float.__hash__


async def test_those_that_wait_and_that_were_set_aside_have_pages_of_their_own(
    server: Server, database: Database
) -> None:
    admin, viewer = await server.admin(), await server.viewer()
    await execute(
        database,
        "INSERT INTO quarantine (service_id, item_id, attempts, bucket_id)"
        " SELECT service_id, item_id, 3, (SELECT bucket_id FROM claim WHERE ended = 'released') FROM result LIMIT 3",
    )
    aside = await pages(viewer, "items", limit=2, service="dm_check", state="quarantined")
    assert [(place["attempts"], place["reason"]) for row in aside for place in row["services"]] == [(3, None)] * 3
    await execute(database, "UPDATE claim SET ended = 'cut_off' WHERE ended = 'released'")
    (row,) = await pages(viewer, "items", item=aside[0]["item"])
    assert row["services"][0]["reason"] == "cut off 1 time"

    await admin.ok("item.add", items=[{"key": "late"}], services=["follower_check"], priority=50)
    (waits,) = await pages(viewer, "items", limit=1, service="follower_check", state="waiting")
    assert (waits["key"], waits["services"][0]["priority"]) == ("late", 50)
    assert waits["services"][0]["since"] is not None


async def test_results_come_newest_first_by_client_bucket_value_and_item(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await server.viewer()
    in_order = await pages(viewer, "results", limit=4, service="dm_check")
    newest = sorted(in_order, key=lambda row: (row["claim"], row["item"]), reverse=True)
    for limit in (1, 2, 100):
        assert await pages(viewer, "results", limit=limit, service="dm_check", sort="newest") == newest
    monkeypatch.setattr(result_pages, "CLAIMS_OF_A_WINDOW", 1)
    monkeypatch.setattr(result_pages, "MOST_WINDOWS", 1)  # so that pages are short
    assert await pages(viewer, "results", limit=2, service="dm_check", sort="newest") == newest
    monkeypatch.undo()

    async def found(**which: Any) -> list[Message]:
        return await pages(viewer, "results", limit=2, service="dm_check", sort="newest", **which)

    assert await found(client_id="ada") == [row for row in newest if row["client_id"] == "ada"]
    assert await found(value={"dm": "NON_DM"}) == [row for row in newest if row["value"] == {"dm": "NON_DM"}]
    assert await found(value={"dm": "DM"}, client_id="bob") == []
    bucket = newest[-1]["bucket_id"]
    assert await found(bucket_id=bucket) == [row for row in newest if row["bucket_id"] == bucket]
    assert await found(bucket_id=bucket, client_id="bob") == []
    since, until = newest[4]["at"], newest[1]["at"]
    assert await found(since=since, until=until) == [row for row in newest if since <= row["at"] < until] != []
    assert await pages(viewer, "results", item=newest[0]["item"]) == [newest[0]]


@pytest.mark.parametrize("most", [1, 30])
async def test_a_page_of_large_results_ends_before_it_is_as_long_as_was_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """So that nobody makes a node load a thousand results of a megabyte."""
    viewer, admin = await server.viewer(), await server.admin()
    whole = await pages(viewer, "results", limit=100, service="dm_check")
    for module in (items, result_pages):
        monkeypatch.setattr(module, "LISTED_BYTES", most)

    page = await viewer.ok("get", topic="results", filter={"service": "dm_check"}, limit=99)
    assert 1 <= len(page["rows"]) <= (1 if most == 1 else 3)  # each value has more than ten bytes
    assert await pages(viewer, "results", limit=99, service="dm_check") == whole
    assert await pages(viewer, "results", limit=99, service="dm_check", sort="newest") == sorted(
        whole, key=lambda row: (row["claim"], row["item"]), reverse=True
    )
    assert await pages(viewer, "results", limit=99, item=whole[0]["item"]) == [whole[0]]
    assert await pages(viewer, "results", limit=99, service="dm_check", key=whole[0]["key"]) == [whole[0]]
    assert len((await admin.ok("result.list", service="dm_check"))["rows"]) == len(page["rows"])


async def test_claims_of_a_bucket_and_those_that_brought_an_item_no_result(server: Server, database: Database) -> None:
    viewer = await server.viewer(token=await server.token("operator"))
    bucket = str(await value(database, "SELECT bucket_id FROM claim WHERE ended = 'released'"))
    claims = await pages(viewer, "claims", limit=1, bucket_id=bucket)
    assert [claim["ended"] for claim in claims if claim["client_id"] == "cleo"][-1] == "released"
    assert [claim["claim"] for claim in claims] == sorted((claim["claim"] for claim in claims), reverse=True)
    item = await value(database, "SELECT items[1] FROM bucket_items WHERE bucket_id::text = $1", bucket)
    lost = await pages(viewer, "claims", limit=1, item=item)
    assert lost == [claim for claim in claims if claim["ended"] == "released"]
    (shown,) = await pages(viewer, "buckets", bucket_id=bucket)
    assert shown["service"] == "dm_check"
    done = await value(database, "SELECT bucket_id::text FROM bucket WHERE state = 'done' LIMIT 1")
    (shown,) = await pages(viewer, "buckets", bucket_id=done)
    assert (shown["state"], shown["age"], shown["remaining"]) == ("done", None, 0)


async def test_onlookers_are_not_told_who_works_on_what(server: Server) -> None:
    viewer = await server.viewer()
    bucket = (await pages(viewer, "buckets"))[0]["bucket_id"]
    for topic, which in (("items", {"bucket_id": bucket}), ("buckets", {"item": 1}), ("claims", {"item": 1})):
        assert await viewer.refused("get", topic=topic, filter=which) == "forbidden"
    assert await pages(viewer, "claims", bucket_id=bucket) is not None


NONSENSE: list[tuple[str, Message]] = [
    ("claims", {}),
    ("claims", {"bucket_id": "none"}),
    ("items", {"state": "done"}),
    ("items", {"item": 0}),
    ("results", {}),
    ("results", {"service": "dm_check", "sort": "settled"}),
    ("clients", {"sort": "newest"}),
    ("results", {"service": "dm_check", "sort": "newest", "key": "a"}),
    ("results", {"service": "dm_check", "value": {"dm": "x" * item_tables.LONGEST_VALUE}}),
]


async def test_a_filter_that_makes_no_sense_is_refused(server: Server) -> None:
    viewer = await server.viewer()
    for topic, which in NONSENSE:
        assert await viewer.refused("get", topic=topic, filter=which) == "bad_message", (topic, which)


async def test_the_schemas_of_a_service_tell_its_results_and_settings(server: Server) -> None:
    viewer, admin = await server.viewer(), await server.admin()
    rows = await pages(viewer, "schemas", limit=1)
    assert [row["service"] for row in rows] == sorted(row["service"] for row in rows)
    (row,) = [row for row in rows if row["service"] == "dm_check"]
    assert (await pages(viewer, "schemas", service="dm_check")) == [row]
    assert "dm" in row["result_schema"]["properties"]
    shown = await admin.ok("service.show", service="dm_check")
    assert row["settings"] == shown["settings"]
    properties = row["settings_schema"]["properties"]
    assert properties.keys() == row["settings"].keys()
    for name, shape in properties.items():
        assert shape["description"].endswith("."), name
        if name not in ("bucket_size", "newcomer_buckets"):  # which this node sets
            assert shape["default"] == row["settings"][name], name
