"""The catalogue is listed by its keys, by prefix, service and state."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.admin import items
from coordinator.stats import item_scan
from coordinator.store.pool import Database
from tests.harness import Admin, Message, Server


async def listed(admin: Admin, **filters: Any) -> list[Message]:
    """All rows, page by page."""
    rows: list[Message] = []
    after = None
    while True:
        page = await admin.ok("item.list", **filters, **({} if after is None else {"after": after}))
        rows += page["rows"]
        after = page["next"]
        if after is None:
            return rows


async def keys(admin: Admin, **filters: Any) -> list[str]:
    return [row["key"] for row in await listed(admin, **filters)]


async def test_each_state_is_as_item_show_tells_it(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 2, "newcomer_buckets": 9})
    await admin.ok("item.add", items=[{"key": f"k{n}"} for n in range(6)], services=["dm_check"])
    await admin.ok("item.add", items=[{"key": "k0", "n": 1}, {"key": "alone"}], services=["follower_check"])
    peer = await server.volunteer("peer")
    first, second = await peer.bucket(), await peer.bucket()
    await peer.submit(first)
    await admin.ok("item.prioritize", keys=[second["items"][0]["key"]], service="dm_check")  # a second copy of it
    async with database.connection() as db:
        await db.execute(
            "INSERT INTO quarantine SELECT service_id, item_id, 3 FROM waiting_item WHERE service_id = 2 LIMIT 1"
        )

    rows = await listed(admin)
    assert [row["key"] for row in rows] == ["alone", *(f"k{n}" for n in range(6))]
    for row in rows:
        shown = await admin.ok("item.show", key=row["key"])
        states = [{"service": one["service"], "state": one["state"]} for one in shown["services"]]
        assert (row["item"], row["attributes"], row["services"]) == (shown["item"], shown["attributes"], states)

    seen = {one["state"] for row in rows for one in row["services"]}
    assert {"settled", "claimed"} < seen
    for state in ("waiting", "ready", "claimed", "settled", "quarantined"):
        expected = [row["key"] for row in rows if state in {one["state"] for one in row["services"]}]
        assert await keys(admin, state=state, limit=1) == expected
        of_service = [row["key"] for row in rows if {"service": "dm_check", "state": state} in row["services"]]
        assert await keys(admin, state=state, service="dm_check") == of_service
    assert await keys(admin, service="follower_check", limit=1) == ["alone", "k0"]


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_prefix_of_handles_has_no_case(admin: Admin, limit: int) -> None:
    names = ["Ada", "adam", "ADAPTER", "Adele", "ada lovelace", "Ada Lovelace", "bob", "ad", "Ádám"]
    await admin.ok("item.add", items=[{"key": key} for key in names])
    assert await keys(admin, prefix="ada", limit=limit) == ["Ada", "ada lovelace", "adam", "ADAPTER"]
    assert await keys(admin, prefix="Ada", limit=limit) == ["Ada Lovelace", "Ada", "adam", "ADAPTER"]
    assert await keys(admin, prefix="@ADA", limit=limit) == ["Ada", "adam", "ADAPTER"]
    assert await keys(admin, prefix="ada l", limit=limit) == ["ada lovelace"]
    assert await keys(admin, prefix="A\u0301", limit=limit) == ["Ádám"]
    assert await keys(admin, prefix="nobody", limit=limit) == []
    assert len(await keys(admin, limit=limit)) == len(names)


async def test_a_page_looks_at_a_bounded_number_of_items(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_scan, "ITEMS_LOOKED_AT_AT_ONCE", 3)
    monkeypatch.setattr(items, "MOST_ITEMS_LOOKED_AT", 6)
    await admin.add(20, services=["dm_check"])
    await admin.ok("item.add", items=[{"key": "z"}], services=["follower_check"])
    page = await admin.ok("item.list", service="follower_check")
    assert (page["rows"], page["next"]) == ([], "account13")
    assert await keys(admin, service="follower_check") == ["z"]
    assert await admin.refused("item.list", service="nothing") == "not_found"


async def test_the_command_lists_all_pages(server: Server, admin: Admin) -> None:
    await admin.add(3, services=["dm_check"])
    rows = await server.command("item", "list", "--prefix", "ACC", "--state", "waiting")
    rows += await server.command("item", "list", "--prefix", "ACC", "--state", "ready")
    assert [row["key"] for row in rows] == ["account0", "account1", "account2"]
