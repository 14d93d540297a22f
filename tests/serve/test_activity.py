"""The activity log: by months, newest first, with the node's own entries."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coordinator.flow.catalogue import Catalogue
from coordinator.store import activity
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server
from tests.serve.tools import configure, eventually, execute, value

MONTHS = """
SELECT array_agg(c.relname::text ORDER BY c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'activity'::regclass"""


async def lines(admin: Admin, **which: object) -> list[Message]:
    """Return all lines, read in small pages."""
    found: list[Message] = []
    after: dict[str, str] = {}
    while True:
        page = await admin.ok("activity.list", limit=7, **which, **after)
        found += page["rows"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


async def test_months_are_made_ready_and_dropped(database: Database) -> None:
    now = datetime.now(UTC)
    months = [now.year * 12 + now.month - 1 + ahead for ahead in range(3)]
    ready = [f"activity_{month // 12}_{month % 12 + 1:02}" for month in months]
    assert await value(database, MONTHS) == [*ready, "activity_other"]
    await execute(database, f"DROP TABLE {ready[1]}")
    await execute(
        database,
        "INSERT INTO activity (at, who, action, outcome) VALUES (now(), '', 'now', ''), "
        "(date_trunc('month', now()) + interval '40 days', '', 'early', ''), "
        "(now() - interval '2 years', '', 'old', ''), (now() - interval '90 days', '', 'young', '')",
    )
    await execute(
        database,
        "CREATE TABLE activity_2020_01 PARTITION OF activity "
        "FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-02-01 00:00:00+00')",
    )
    async with database.connection() as db:
        await activity.keep(db, 400)
        await activity.keep(db, 400)
    assert await value(database, MONTHS) == [*ready, "activity_other"]
    where = await value(database, "SELECT array_agg(tableoid::regclass || ' ' || action ORDER BY at) FROM activity")
    assert where == ["activity_other young", f"{ready[0]} now", f"{ready[1]} early"]
    async with database.connection() as db:
        await activity.keep(db, 30)
    assert await value(database, "SELECT count(*) FROM activity") == 2


async def test_pages_over_months_newest_first(server: Server, admin: Admin, database: Database) -> None:
    await execute(
        database,
        "INSERT INTO activity (at, who, action, target, outcome) "
        "SELECT now() - n / 3 * interval '10 days', 'me', 'test.' || n % 2, 'c' || n % 5, n "
        "FROM generate_series(1, 90) n",
    )
    found = [row for row in await lines(admin) if row["who"] == "me"]
    assert len({row["outcome"] for row in found}) == len(found) == 90
    assert [row["at"] for row in found] == sorted((row["at"] for row in found), reverse=True)
    assert await lines(admin, action="test.1") == [row for row in found if row["action"] == "test.1"]
    assert await lines(admin, client_id="c3") == [row for row in found if row["target"] == "c3"]
    both = await lines(admin, client_id="c3", action="test.0")
    assert both == [row for row in found if (row["target"], row["action"]) == ("c3", "test.0")]
    since, until = found[60]["at"], found[20]["at"]
    window = [row for row in found if since <= row["at"] < until]
    assert await lines(admin, since=since, until=until) == window != []
    assert await admin.refused("activity.list", after="7") == "bad_message"


@pytest.mark.parametrize("statement", ["_NEWEST", "_BY_ACTION", "_BY_TARGET"])
async def test_a_page_reads_an_index_of_each_month_and_sorts_nothing(database: Database, statement: str) -> None:
    await execute(
        database,
        "INSERT INTO activity (at, who, action, target, outcome) "
        "SELECT now() - n * interval '1 minute', 'me', 'a' || n % 9, 'c' || n % 9, '' FROM generate_series(1, 20000) n",
    )
    more = {"_NEWEST": "", "_BY_ACTION": ", 'a1'", "_BY_TARGET": ", 'c1', NULL"}[statement]
    types = "timestamptz, bigint, timestamptz, bigint" + ", text" * more.count(",")
    async with database.connection() as db:
        await db.execute(f"PREPARE page ({types}) AS {getattr(activity, statement)}")
        rows = await db.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) EXECUTE page (now(), 0, NULL, 100{more})")
        await db.execute("DEALLOCATE page")
    plan = "\n".join(row[0] for row in rows)
    assert "Sort  (" not in plan
    assert "Seq Scan" not in plan


async def test_what_the_node_notes_itself(
    start_server: StartServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await configure(database, idle_after=1)
    await execute(
        database, "INSERT INTO node (name, version, lease_until) VALUES ('lost', '1', now() - interval '1 minute')"
    )
    server = await start_server(node_name="here")
    admin = await server.admin()
    await server.volunteer("sleeper")

    async def noted(action: str) -> bool:
        return bool(await lines(admin, action=action))

    await eventually(lambda: noted("client.idle"), "nobody is idle")
    (line,) = await lines(admin, action="client.idle", client_id="sleeper")
    assert (line["who"], line["outcome"]) == ("node:here", "dm_check")
    await eventually(lambda: noted("node.gone"), "no node is gone")
    (line,) = await lines(admin, action="node.gone")
    assert (line["who"], line["target"]) == ("node:here", "lost")

    def fails(self: Catalogue) -> None:
        raise ZeroDivisionError("wrong")

    with monkeypatch.context() as broken:
        broken.setattr(Catalogue, "all", fails)
        await eventually(lambda: noted("node.fault"), "no fault is noted")
    line = (await lines(admin, action="node.fault"))[-1]
    assert (line["who"], line["target"]) == ("node:here", "clock")
    assert line["outcome"].startswith("ZeroDivisionError('wrong')")


async def test_a_quarantined_item_is_noted(start_server: StartServer, database: Database) -> None:
    server = await start_server(node_name="here", recollect_window=0)
    admin = await server.admin()
    await admin.add(1, "poison", services=["dm_check"])
    for name in ("ada", "bob", "cleo"):
        peer = await server.volunteer(name)
        await execute(database, "UPDATE membership SET settled = 1")
        await peer.bucket()
        peer.cut()

    async def noted() -> bool:
        return bool(await lines(admin, action="item.quarantine", client_id="poison0"))

    await eventually(noted, "nothing is quarantined")
    (line,) = await lines(admin, action="item.quarantine")
    assert (line["who"], line["target"]) == ("node:here", "poison0")
    assert line["outcome"].startswith("dm_check, after ")
