"""The order of items, and the bound within which every item is handed out.  protocol.md, "Rank" """

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from coordinator.store.pool import Database
from tests.harness import Admin, Server, Volunteer, submission

StartServer = Callable[..., Awaitable[Server]]


async def settings(database: Database, **values: object) -> None:
    """Change settings of dm_check, before a node starts."""
    async with database.connection() as db:
        await db.execute("UPDATE service SET settings = $1 WHERE name = 'dm_check'", json.dumps(values))


async def test_urgent_items_come_first_and_are_pushed_at_once(admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(400)
    await admin.ok("item.add", items=[{"key": "urgent"}], priority=0)
    bucket = await volunteer.bucket()
    assert [item["key"] for item in bucket["items"]] == ["urgent"]


async def test_prioritised_items_leave_ready_buckets_and_come_first(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(400)
    first = await volunteer.bucket()
    in_hand = {item["key"] for item in first["items"]}
    chosen = [f"account{n}" for n in range(400) if f"account{n}" not in in_hand][:3]
    answer = await admin.ok("item.prioritize", keys=[*chosen, "nobody"], service="dm_check")
    assert (answer["prioritized"], answer["unknown"]) == (3, ["nobody"])
    bucket = await volunteer.bucket()
    assert {item["key"] for item in bucket["items"]} == set(chosen)
    rest: set[str] = set()
    while len(in_hand) + len(rest) + 3 < 400:
        more = {item["key"] for item in (await volunteer.bucket())["items"]}
        assert not more & (rest | set(chosen)), "an item was handed out twice"
        rest |= more
    assert in_hand | rest | set(chosen) == {f"account{n}" for n in range(400)}


async def test_a_claimed_item_that_is_prioritised_counts_once(server: Server, admin: Admin) -> None:
    slow, quick = await server.volunteer("slow"), await server.volunteer("quick")
    await admin.add(5)
    first = await slow.bucket()
    for _ in range(2):  # prioritising again makes no third copy
        await admin.ok("item.prioritize", keys=["account1"], service="dm_check")
    copy = await quick.bucket()
    assert [item["key"] for item in copy["items"]] == ["account1"]
    asked = await quick.ask_for("ask", service="dm_check", count=1, wait=False)
    assert asked["code"] == "no_work"
    assert (await quick.submit(copy, "NON_DM"))["stored"] == 1
    stored = await slow.submit(first, "DM")
    assert (stored["stored"], stored["discarded"], stored["closed"]) == (4, 1, True)
    shown = await admin.ok("item.show", key="account1")
    assert [row["value"] for row in shown["services"][0]["results"]] == [{"dm": "NON_DM"}]


async def test_normal_items_are_settled_within_the_bound_under_a_stream_of_urgent_ones(
    start_server: StartServer, database: Database
) -> None:
    """Urgent items take nine of ten buckets; what arrives after a normal item's rank plus the cap comes after it."""
    cap = 2.0
    await settings(database, bucket_size=10, max_head_start=cap)
    server = await start_server()
    admin, volunteer = await server.admin(), await server.volunteer("worker")
    await admin.add(60, "normal")
    async with database.connection() as db:
        since: datetime = await db.fetchval("SELECT max(added_at) FROM item")
    left, turn, overtook = 60, 0, 0
    while left:
        turn += 1
        if turn % 10:
            items = [{"key": f"urgent{turn}.{n}"} for n in range(10)]
            await admin.ok("item.add", items=items, priority=0)
        bucket = await volunteer.bucket()
        keys = [item["key"] for item in bucket["items"]]
        async with database.connection() as db:
            arrived = await db.fetchval("SELECT min(added_at) FROM item WHERE key = ANY ($1::text[])", keys)
        if keys[0].startswith("normal"):
            left -= len(keys)
        else:
            overtook += 1
            assert arrived <= since + timedelta(seconds=cap), "an item overtook that arrived after the bound"
        assert (await volunteer.ok("submit", **submission(bucket)))["closed"]
    assert overtook > 0, "nothing urgent came first, so the test shows nothing"


async def test_old_results_become_due_again_oldest_first(start_server: StartServer, database: Database) -> None:
    await settings(database, recheck_after=3600)
    server = await start_server()
    admin, volunteer = await server.admin(), await server.volunteer("worker")
    for prefix in ("young", "old"):
        await admin.add(3, prefix)
        await volunteer.submit(await volunteer.bucket())
    asked = await volunteer.ok("ask", service="dm_check", count=2)
    assert asked["pending"] == 2
    async with database.connection() as db:
        oldest = await db.fetchval("SELECT claim_id FROM claim ORDER BY claim_id DESC LIMIT 1")
        await db.execute("UPDATE claim SET ended_at = now() - interval '2 hours' WHERE claim_id = $1", oldest)
    again = await volunteer.push("bucket")
    assert {item["key"] for item in again["items"]} == {"old0", "old1", "old2"}
    assert (await volunteer.submit(again, "NON_DM"))["stored"] == 3
    shown = await admin.ok("item.show", key="old0")
    assert [row["value"]["dm"] for row in shown["services"][0]["results"]] == ["NON_DM", "DM"]


async def test_the_bound_is_published_for_each_priority(admin: Admin) -> None:
    await admin.add(3)
    await admin.add(3, "urgent", priority=0)
    (service,) = [row for row in (await admin.ok("stats"))["services"] if row["service"] == "dm_check"]
    found = {row["priority"]: row for row in service["oldest"]}
    assert set(found) == {0, 100}
    for priority, row in found.items():
        since, until = (datetime.fromisoformat(row[name]) for name in ("since", "overtaken_until"))
        assert until - since == timedelta(seconds=86_400 * priority / 100)
