"""A node whose role owns nothing and has just the rights of `deploy/postgres/rights.sql` does all of its work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, get_args

import asyncpg
import pytest

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.errors import ConfigError
from coordinator.prepare import prepare_database
from coordinator.stats.tables import TABLE_FILTERS
from coordinator.store import activity, fence
from coordinator.store.pool import Database
from coordinator.wire import stats as wire
from tests.harness import Admin, Server, Volunteer
from tests.serve.tools import configure, eventually, execute, value

ROLE = "coordinator_node"

RIGHTS = (Path(__file__).parents[2] / "deploy/postgres/rights.sql").read_text()


@pytest.fixture
async def nodes_dsn(database: Database) -> AsyncIterator[str]:
    """The DSN of the node's role; its rights are those of the manual."""
    await execute(database, RIGHTS)
    assert "postgresql://postgres@" in database.dsn
    yield database.dsn.replace("//postgres@", f"//{ROLE}@")
    await execute(database, f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
async def server(nodes_dsn: str, database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    """A node of that role."""
    await prepare_database(nodes_dsn, None)
    await configure(database, bucket_size=2)
    async with AsyncExitStack() as stack:
        settings = Settings(port=0, ops_port=0, data=tmp_path, recollect_window=0)
        node = await stack.enter_async_context(Node(settings, dsn=nodes_dsn))
        yield Server(node, database, stack)


async def test_the_role_may_do_no_more(nodes_dsn: str, database: Database) -> None:
    owned = "SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) = $1"
    assert await value(database, owned, ROLE) == 0
    db = await asyncpg.connect(nodes_dsn)
    for statement in (
        "CREATE TABLE more (id integer)",
        "DROP TABLE activity",
        "ALTER TABLE item ADD COLUMN more text",
        "TRUNCATE result",
        "DELETE FROM migration",
        "CREATE ROLE other",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute(statement)
    with pytest.raises(ConfigError, match="expected the role that owns it"):
        await fence.raise_fence(db)
    await db.close()


async def test_nobody_else_may_call_what_runs_with_the_owners_rights(database: Database) -> None:
    called = """
        SELECT proname FROM pg_proc WHERE prosecdef
           AND (has_function_privilege('pg_monitor', oid, 'EXECUTE')
                OR proconfig::text NOT LIKE '%search_path=%pg_temp%')"""
    assert await value(database, "SELECT count(*) FROM pg_proc WHERE prosecdef") == 1
    assert await value(database, called) is None


async def test_months_of_the_activity_log_come_and_go(nodes_dsn: str, database: Database) -> None:
    await execute(
        database,
        "CREATE TABLE activity_2020_01 PARTITION OF activity "
        "FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-02-01 00:00:00+00')",
    )
    months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'activity'::regclass"
    later = await value(database, "SELECT to_char(now() + '1 month', '\"activity_\"YYYY_MM')")
    await execute(database, f"DROP TABLE {later}")
    assert await value(database, months) == 4
    node = Database(nodes_dsn)
    await node.open()
    async with node.connection() as db:
        # What stands in its own temporary tables is not taken for the log.
        await db.execute("CREATE TEMPORARY TABLE activity_other (at timestamptz)")
        await activity.keep(db, 400)
        await activity.note(db, "somebody", "did", None, "ok")
    await node.close()
    assert await value(database, months) == 4
    assert await value(database, "SELECT to_regclass('activity_2020_01') IS NULL")


async def test_all_of_the_work(server: Server) -> None:
    admin, volunteer = await server.admin(), await server.volunteer("volunteer")
    await _work(server, admin, volunteer)
    await _operate(admin, volunteer)
    await _look(server)
    await server.node.parts.statistics.recorder.write()
    await server.node.parts.work.health_monitor.look()
    await server.node.parts.work.pruner.prune()
    assert not server.node.events.counts["fault"]


async def _work(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    """Everything that clients do."""
    await admin.add(20, services=["dm_check"])
    assert (await volunteer.submit(await volunteer.bucket()))["closed"]
    bucket = await volunteer.bucket()
    await volunteer.submit(bucket, items=[bucket["items"][0]["item"]], final=False)
    await volunteer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    other = await server.volunteer("other")
    await other.bucket()
    other.cut()

    async def freed() -> bool:
        return bool(await value(server.database, "SELECT count(*) = 0 FROM bucket WHERE state = 'claimed'"))

    await eventually(freed, "what was cut off is held")
    for kind in ("recollect", "services"):
        await volunteer.ok(kind)
    await volunteer.ok("leave", service="dm_check")
    await volunteer.ok("join", service="dm_check", profile={"source": "volunteer"})

    await admin.add(4, prefix="follow", services=["follower_check"])
    await volunteer.ok("join", service="follower_check", profile={"source": "volunteer"})
    held = await volunteer.bucket("follower_check")
    results = [{"item": item["item"], "accounts": [{"key": "somebody"}]} for item in held["items"]]
    fields = {"bucket_id": held["bucket_id"], "claim": held["claim"]}
    assert (await volunteer.ok("submit", **fields, results=results, final=True))["closed"]


async def _operate(admin: Admin, volunteer: Volunteer) -> None:
    """Requests of operators and admins."""
    requests: list[tuple[str, dict[str, Any]]] = [
        ("item.prioritize", {"keys": ["account1"], "service": "dm_check"}),
        ("item.show", {"key": "account1"}),
        ("item.waiting", {"service": "dm_check"}),
        ("item.quarantined", {}),
        ("item.delete", {"keys": ["account2"]}),
        ("bucket.list", {}),
        ("result.list", {"service": "dm_check"}),
        ("result.export", {"service": "dm_check", "format": "jsonl"}),
        ("client.list", {}),
        ("client.deactivate", {"client_id": "other"}),
        ("client.activate", {"client_id": "other"}),
        ("client.forget_secret", {"client_id": "other"}),
        ("service.add", {"service": "more", "plugin": "dm_check"}),
        ("service.pause", {"service": "more"}),
        ("service.resume", {"service": "more"}),
        ("service.revoke", {"service": "more"}),
        ("service.restore", {"service": "more"}),
        ("service.list", {}),
        ("token.issue", {"role": "viewer", "label": "one"}),
        ("token.list", {}),
        ("node.list", {}),
        ("activity.list", {}),
        ("stats", {}),
        ("health", {}),
        ("limits", {}),
    ]
    for kind, fields in requests:
        await admin.ok(kind, **fields)
    taken = await admin.ok("result.invalidate", client_id="volunteer", dry_run=False, requeue=True)
    await admin.ok("result.reinstate", invalidation_id=taken["invalidation_id"])
    await volunteer.ok("unregister")


async def _look(server: Server) -> None:
    """Every topic, and every table."""
    viewer = await server.viewer(token=await server.token("operator"))
    topics = list(server.node.parts.sockets.listener._channels.stats.feeds.feeds)
    await viewer.ok("subscribe", topics=topics, interval=1)
    missing = set(topics)
    while missing:
        missing.discard((await viewer.push("snapshot"))["topic"])
    chosen = {"service": "dm_check", "client_id": "volunteer"}
    for table in get_args(wire.Table):
        known = TABLE_FILTERS[table]
        filters = (
            {"item": 1}
            if table in ("claims", "neighbours")
            else {name: chosen[name] for name in chosen if name in known}
        )
        await viewer.ok("get", topic=table, filter=filters)
