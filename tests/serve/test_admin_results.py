"""Results are invalidated, reinstated and exported."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import msgspec
import pytest

from coordinator.admin import results
from coordinator.cli.export import ROW_FIELDS
from coordinator.flow import requeue
from coordinator.store import export as store_export
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer
from tests.serve.tools import eventually, value


async def sizes(admin: Admin, size: int) -> None:
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": size})


async def state(admin: Admin, key: str, service: str = "dm_check") -> tuple[str, list[tuple[str, bool]]]:
    """Return an item's state, and client and validity of each result, newest first."""
    shown = await admin.ok("item.show", key=key)
    found = next(one for one in shown["services"] if one["service"] == service)
    return found["state"], [(row["client_id"], row["valid"]) for row in found["results"]]


async def invalidate(admin: Admin, *, dry_run: bool = False, requeue: bool = False, **which: str) -> Message:
    return await admin.ok("result.invalidate", dry_run=dry_run, requeue=requeue, **which)


async def test_a_wrong_client_is_found_undone_and_its_items_are_checked_again(server: Server, admin: Admin) -> None:
    await sizes(admin, 5)
    await admin.add(20, services=["dm_check"])
    wrong, right = await server.volunteer("wrong"), await server.volunteer("right")
    bad = [await wrong.bucket() for _ in range(2)]
    good = [await right.bucket() for _ in range(2)]
    for bucket in bad:
        await wrong.submit(bucket, "DM")
    for bucket in good:
        await right.submit(bucket, "NON_DM")
    keys = {item["key"] for bucket in bad for item in bucket["items"]}
    listed = await admin.ok("result.list", service="dm_check", client_id="wrong")
    assert {row["key"] for row in listed["rows"]} == keys
    dry = await invalidate(admin, client_id="wrong", dry_run=True, requeue=True)
    assert (dry["count"], dry["invalidation_id"]) == (10, None)
    assert await state(admin, next(iter(keys))) == ("settled", [("wrong", True)])
    await admin.ok("service.pause", service="dm_check")  # else what waits is soon in buckets
    done = await invalidate(admin, client_id="wrong", requeue=True)
    assert done["count"] == 10
    assert isinstance(done["invalidation_id"], int)
    assert {row["key"] for row in (await admin.ok("item.waiting", service="dm_check"))["rows"]} == keys
    for key in keys:
        assert await state(admin, key) == ("waiting", [("wrong", False)])
    assert (await invalidate(admin, client_id="wrong", requeue=True))["count"] == 0
    await admin.ok("service.resume", service="dm_check")
    assert [(await right.push("service"))["state"] for _ in range(2)] == ["paused", "active"]
    checked = [await right.bucket() for _ in range(2)]
    assert {item["key"] for bucket in checked for item in bucket["items"]} == keys
    await right.submit(checked[0], "NON_DM")
    await right.submit(checked[1], "NON_DM")
    for key in keys:
        assert await state(admin, key) == ("settled", [("right", True), ("wrong", False)])
    back = await admin.ok("result.reinstate", invalidation_id=done["invalidation_id"])
    assert back["count"] == 10
    for key in keys:
        assert await state(admin, key) == ("settled", [("right", True), ("wrong", True)])
    assert await admin.refused("result.reinstate", invalidation_id=done["invalidation_id"]) == "not_found"
    assert await admin.refused("result.reinstate", invalidation_id=4711) == "not_found"
    log = (await admin.ok("activity.list", action="result.invalidate"))["rows"]
    assert [row["outcome"] for row in log] == ["ok"] * 3


async def test_without_requeue_nothing_waits(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(3, services=["dm_check"])
    await volunteer.submit(await volunteer.bucket())
    assert (await invalidate(admin, service="dm_check"))["count"] == 3
    assert await state(admin, "account0") == ("settled", [("volunteer", False)])


async def test_what_has_a_newer_valid_result_does_not_wait(server: Server, admin: Admin) -> None:
    await admin.add(2, services=["dm_check"])
    first, second = await server.volunteer("first"), await server.volunteer("second")
    await first.submit(await first.bucket())
    await admin.ok("item.prioritize", keys=["account0"], service="dm_check")
    await second.submit(await second.bucket())
    assert (await invalidate(admin, client_id="first", requeue=True))["count"] == 2
    assert await state(admin, "account0") == ("settled", [("second", True), ("first", False)])
    assert await state(admin, "account1") == ("waiting", [("first", False)])
    # Of those whose newest is taken an older valid one is left: it was to be checked again, and is.
    third = await invalidate(admin, client_id="second", requeue=True)
    assert (await state(admin, "account0"))[0] == "waiting"
    await admin.ok("result.reinstate", invalidation_id=third["invalidation_id"])


async def test_a_time_window(server: Server, admin: Admin, database: Database) -> None:
    await sizes(admin, 4)
    await admin.add(12, services=["dm_check"])
    peer = await server.volunteer("peer")
    buckets = [await peer.bucket() for _ in range(3)]
    moments = []
    for bucket in buckets:
        async with database.connection() as db:
            moments.append((await db.fetchval("SELECT now()")).isoformat())
        await peer.submit(bucket)
    # All were claimed before the first moment: what counts is when the results were stored.
    assert (await invalidate(admin, since=moments[1], until=moments[2], dry_run=True))["count"] == 4
    assert (await invalidate(admin, since=moments[2], dry_run=True))["count"] == 4
    assert (await invalidate(admin, until=moments[1], dry_run=True))["count"] == 4
    late = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert (await invalidate(admin, since=late, dry_run=True))["count"] == 0
    answer = await admin.ask_for("result.invalidate", dry_run=True, requeue=False, since="yesterday")
    assert (answer["code"], answer["detail"]["path"]) == ("bad_message", "$.since")


async def test_a_claim_under_way_is_ended_so_that_no_later_result_is_taken_back_unseen(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(4, services=["dm_check"])
    bucket = await volunteer.bucket()
    items = [one["item"] for one in bucket["items"]]
    await volunteer.submit(bucket, items=items[:1], final=False)
    assert (await invalidate(admin, client_id="volunteer", requeue=True))["count"] == 1
    lost = await volunteer.push("bucket_lost")
    assert (lost["bucket_id"], lost["reason"]) == (bucket["bucket_id"], "released")
    assert (await volunteer.submit(bucket, items=items[1:]))["code"] == "stale_claim"
    other = await server.volunteer("other")
    seen = set()
    for _ in range(2):
        again = await other.bucket()
        seen |= {one["item"] for one in again["items"]}
        await other.submit(again)
    assert seen == set(items)
    async with server.database.connection() as db:
        valid = await db.fetchval(
            "SELECT count(*) FROM result JOIN claim USING (claim_id) WHERE invalidated_by IS NULL"
        )
    assert valid == 4


async def test_what_a_request_leaves_is_done_behind_it(
    start_server: StartServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "REQUEUE_PATIENCE", 0.0)
    monkeypatch.setattr(requeue, "CLAIMS_PER_TRANSACTION", 1)
    monkeypatch.setattr(requeue, "REQUEUE_INTERVAL", 0.1)
    quick = await start_server(node_name="quick")
    admin = await quick.admin()
    await sizes(admin, 2)
    await admin.add(10, services=["dm_check"])
    peer = await quick.volunteer("peer")
    for _ in range(5):
        await peer.submit(await peer.bucket())
    assert (await invalidate(admin, client_id="peer", requeue=True))["count"] == 10
    other = await quick.volunteer("other")
    again = [await other.bucket() for _ in range(5)]
    assert sorted(item["key"] for bucket in again for item in bucket["items"]) == [f"account{n}" for n in range(10)]

    async def over() -> bool:
        return bool(await value(quick.database, "SELECT requeued IS NULL FROM invalidation"))

    await eventually(over, "one more look finds nothing left")


async def test_the_follow_graph_follows(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("item.add", items=[{"key": "ada"}], services=["following_check"])
    first, second = await server.volunteer("first"), await server.volunteer("second")
    edges = "SELECT follower, followed, first_claim, last_claim FROM follow ORDER BY 2"

    async def check(peer: Volunteer, *keys: str, complete: bool = True) -> int:
        await peer.ok("join", service="following_check")
        bucket = await peer.bucket("following_check")
        result = {"item": bucket["items"][0]["item"], "accounts": [{"key": key} for key in keys], "complete": complete}
        await peer.ok("submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=[result], final=True)
        return int(bucket["claim"])

    a = await check(first, "bob", "eve")
    await admin.ok("item.prioritize", keys=["ada"], service="following_check")
    b = await check(second, "bob", "zoe", complete=False)  # a part alone: no result, and yet something to take back
    async with database.connection() as db:
        rows = [tuple(row) for row in await db.fetch(edges)]
        assert rows == [("ada", "bob", a, b), ("ada", "eve", a, a), ("ada", "zoe", b, b)]
        gone = await invalidate(admin, client_id="second", service="following_check")
        assert gone["count"] == 0
        assert [tuple(row) for row in await db.fetch(edges)] == [("ada", "bob", a, a), ("ada", "eve", a, a)]
        await admin.ok("result.reinstate", invalidation_id=gone["invalidation_id"])
        assert [tuple(row) for row in await db.fetch(edges)] == rows


async def test_unknown_ones(admin: Admin) -> None:
    for which in ({"client_id": "nobody"}, {"service": "nothing"}):
        assert await admin.refused("result.invalidate", dry_run=True, requeue=False, **which) == "not_found"
    assert await admin.refused("result.export", service="nothing", format="csv") == "not_found"
    assert await admin.refused("result.export", service="dm_check", format="xml") == "bad_message"


PROGRAM = """
import sys
from pathlib import Path
from coordinator.cli import build
try:
    build()(sys.argv[1:], standalone_mode=False)
finally:
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""


def peak() -> int:
    """Return the most memory (KiB) that this process has had."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def forget_peak() -> None:
    """Reset the peak, so that the memory of earlier tests does not count."""
    Path("/proc/self/clear_refs").write_text("5")


FILL = """
WITH made AS (INSERT INTO item (key) SELECT 'k' || n || CASE WHEN n = 5 THEN ', "quoted"' ELSE '' END
                FROM generate_series($1::int, $2::int) n RETURNING item_id),
b AS (INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given, settled, ended, ended_at)
      SELECT DISTINCT item_id / 180 + 1000000::bigint * $1, gen_random_uuid(), 1, 'peer', gen_random_uuid(),
             1, B'1', 180, 'settled', now()
        FROM (SELECT DISTINCT item_id / 180 * 180 AS item_id FROM made) m)
INSERT INTO result (item_id, service_id, claim_id, value)
SELECT item_id, 1, item_id / 180 + 1000000::bigint * $1, '{"dm": "DM"}' FROM made"""


async def export(server: Server, path: Path, *words: str) -> tuple[int, str]:
    """Run `result export`; returns the most memory (KiB) that it took, and its standard error.

    That memory is not its ru_maxrss, which begins with that of the process that started it.
    """
    with path.open("wb") as out:
        command = [
            sys.executable, "-c", PROGRAM, "result", "export", "dm_check", "--server", server.url,
            "--token", await server.token("operator"), *words,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
    *lines, memory = said.decode().strip().splitlines()
    assert process.returncode == 0, lines
    return int(memory), "\n".join(lines)


@pytest.mark.long
@pytest.mark.measured
async def test_export_of_a_million_results_takes_no_more_memory(
    server: Server, database: Database, tmp_path: Path
) -> None:
    async with database.connection() as db:
        await db.execute(FILL, 1, 200_000, timeout=100)  # ten pages: as many are on their way as ever will be
    forget_peak()
    few, _ = await export(server, tmp_path / "few", "--format", "jsonl")
    of_node = peak()
    async with database.connection() as db:
        await db.execute(FILL, 200_001, 1_000_000, timeout=100)
        await db.execute("SELECT brin_summarize_new_values('result_claim')")  # as autovacuum does behind usual work
    begun = time.monotonic()
    many, _ = await export(server, tmp_path / "many", "--format", "jsonl")
    sys.stdout.write(f"{1_000_000 / (time.monotonic() - begun):,.0f} results a second\n")
    assert many < few + 8 * 1024
    assert peak() < of_node + 16 * 1024
    count, last = 0, (0, 0)
    with (tmp_path / "many").open("rb") as lines:
        for row in map(msgspec.json.decode, lines):
            # In the order of their claims, which have the items in the order of their numbers: so each comes once.
            assert row["claim"] >= last[0]
            assert row["item"] > last[1]
            assert tuple(row) == ROW_FIELDS
            count, last = count + 1, (row["claim"], row["item"])
    assert count == 1_000_000


@pytest.mark.parametrize(
    ("window", "enough", "most", "limit"),
    [(6000, 1 << 20, 2 << 20, 20_000), (1, 1, 1, 20_000), (7, 3000, 4000, 20_000), (6000, 9000, 9000, 5), (6, 1, 1, 3)],
)
async def test_an_export_has_the_rows_of_the_list_wherever_its_pages_end(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch, window: int, enough: int, most: int, limit: int
) -> None:
    for name, bound in (("WINDOW_RESULTS", window), ("FULL_PAGE_BYTES", enough), ("MAX_PAGE_BYTES", most)):
        monkeypatch.setattr(store_export, name, bound)
    await sizes(admin, 5)
    await admin.add(40, prefix='"é\\', services=["dm_check"])
    for name in ("one", "two"):
        peer = await server.volunteer(name)
        for _ in range(4):
            await peer.submit(await peer.bucket())
    await invalidate(admin, client_id="two")
    listed = (await admin.ok("result.list", service="dm_check", limit=1000))["rows"]
    assert len(listed) == 40
    assert {row["valid"] for row in listed} == {True, False}
    rows: list[Message] = []
    after: dict[str, str] = {}
    while True:
        page = await admin.ok("result.export", service="dm_check", format="jsonl", limit=limit, **after)
        assert len(page["rows"]) <= limit
        rows += page["rows"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert rows == listed


async def test_an_export_goes_on_after_where_it_was_broken_off(
    server: Server, database: Database, tmp_path: Path
) -> None:
    async with database.connection() as db:
        await db.execute(FILL, 1, 2_500)
    _, said = await export(server, tmp_path / "first", "--format", "csv", "--limit", "700")
    after = said.rpartition("--after ")[2].strip("'")
    _, said = await export(server, tmp_path / "rest", "--format", "csv", "--after", after)
    assert said == ""
    text = ((tmp_path / "first").read_bytes() + (tmp_path / "rest").read_bytes()).decode()
    rows = list(csv.DictReader(StringIO(text, newline="")))
    assert len({row["item"] for row in rows}) == len(rows) == 2_500
    assert {row["key"] for row in rows} >= {"k1", 'k5, "quoted"'}
    assert json.loads(rows[0]["value"]) == {"dm": "DM"}
    assert rows[0]["valid"] == "true"


async def test_what_is_reinstated_waits_no_more_and_what_is_claimed_goes_on(server: Server, admin: Admin) -> None:
    await sizes(admin, 5)
    await admin.add(20, services=["dm_check"])
    ada, bob = await server.volunteer("ada"), await server.volunteer("bob")
    for _ in range(4):
        await ada.submit(await ada.bucket(), "DM")

    await admin.ok("service.pause", service="dm_check")  # else what waits is soon in buckets
    gone = await invalidate(admin, client_id="ada", requeue=True)
    waiting = [row["key"] for row in (await admin.ok("item.waiting", service="dm_check"))["rows"]]
    assert len(waiting) == 20
    await admin.ok("item.prioritize", keys=waiting[:12], service="dm_check")  # of five, five and two
    await admin.ok("service.resume", service="dm_check")
    assert [(await bob.push("service"))["state"] for _ in range(2)] == ["paused", "active"]
    claimed = await bob.bucket()
    again = {item["key"] for item in claimed["items"]}

    await admin.ok("result.reinstate", invalidation_id=gone["invalidation_id"])
    assert (await admin.ok("item.waiting", service="dm_check"))["rows"] == []
    for key in waiting:
        assert await state(admin, key) == ("claimed" if key in again else "settled", [("ada", True)])
    assert await bob.refused("ask", service="dm_check", count=1, wait=False) == "no_work"

    stored = await bob.submit(claimed, "NON_DM")
    assert (stored["stored"], stored["discarded"]) == (len(again), 0)
    for key in again:
        assert await state(admin, key) == ("settled", [("bob", True), ("ada", True)])


async def test_changes_are_told_page_by_page_with_what_an_export_has(server: Server, admin: Admin) -> None:
    volunteer = await server.volunteer("ada")
    await admin.add(3)
    await volunteer.submit(await volunteer.bucket())

    page = await admin.ok("result.changes", service="dm_check", limit=2)
    assert (len(page["rows"]), page["more"]) == (2, True)
    rest = await admin.ok("result.changes", service="dm_check", after=page["next"])
    assert (len(rest["rows"]), rest["more"]) == (1, False)
    rows = [*page["rows"], *rest["rows"]]
    assert {row.pop("change") for row in rows} == {"stored"}
    exported = (await admin.ok("result.export", service="dm_check", format="jsonl"))["rows"]
    assert sorted(rows, key=lambda row: row["item"]) == sorted(exported, key=lambda row: row["item"])

    await admin.ok("item.delete", keys=[rows[0]["key"]])
    gone = await admin.ok("result.changes", service="dm_check", after=rest["next"])
    (row,) = gone["rows"]
    assert (row["change"], row["item"], row.keys()) == (
        "deleted", rows[0]["item"], {"change", "service", "item", "at"}
    )  # fmt: skip
    idle = await admin.ok("result.changes", service="dm_check", after=gone["next"])
    assert (idle["rows"], idle["next"], idle["more"]) == ([], gone["next"], False)

    assert await admin.refused("result.changes", service="nothing") == "not_found"
    assert await admin.refused("result.changes", service="dm_check", after="x") == "bad_message"


async def test_invalidations_are_listed_with_what_was_meant_and_whether_they_still_hold(
    server: Server, admin: Admin
) -> None:
    volunteer = await server.volunteer("ada")
    await admin.add(2)
    await volunteer.submit(await volunteer.bucket())
    first = await admin.ok("result.invalidate", client_id="ada", dry_run=False, requeue=False)
    await admin.ok("result.reinstate", invalidation_id=first["invalidation_id"])
    await admin.ok("result.invalidate", service="dm_check", since="2026-01-01T00:00:00Z", dry_run=False, requeue=False)

    page = await admin.ok("result.invalidations", limit=1)
    rest = await admin.ok("result.invalidations", after=page["next"])
    of_ada, of_service = page["rows"][0], rest["rows"][0]
    assert (of_ada["client_id"], of_ada["service"], of_ada["results"], of_ada["claims"]) == ("ada", None, 2, 1)
    assert of_ada["reinstated_at"] is not None
    assert (of_service["client_id"], of_service["service"], of_service["results"]) == (None, "dm_check", 2)
    assert (of_service["since"], of_service["reinstated_at"]) == ("2026-01-01T00:00:00Z", None)
