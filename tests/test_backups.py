"""Backup and restore, on real Postgres: nothing lost that was there, nothing of before accepted afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator import backups
from coordinator.app import Node
from coordinator.client import Backoff, Client
from coordinator.client.daemon import Daemon
from coordinator.client.service_work import ServiceWork
from coordinator.config import Settings
from coordinator.embedded import archive
from coordinator.errors import ConfigError
from coordinator.prepare import prepare_database
from coordinator.store import fence
from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.databases import Databases
from tests.harness import Admin, Server, Volunteer
from tests.serve.tools import configure, eventually, execute, join_again, results, value

_TABLES = """
SELECT relname FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT IN ('bucket', 'claim', 'node', 'session')
 ORDER BY relname"""

_DISAGREE = """
SELECT count(*) FROM (
    SELECT service_id, 'joined' AS what, sum(items) AS n FROM enrolment GROUP BY 1
    UNION ALL SELECT service_id, 'waiting', sum(items) FROM waiting GROUP BY 1) real
 WHERE n <> (SELECT coalesce(sum(number), 0) FROM (
    SELECT service_id, what, number FROM service_count UNION ALL SELECT service_id, what, number FROM count_change) c
             WHERE c.service_id = real.service_id AND c.what = real.what)"""


@pytest.fixture
async def empty(databases: Databases) -> AsyncIterator[str]:
    """The DSN of a database without anything in it."""
    dsn = await databases.create("restored", "template0")
    yield dsn
    await databases.drop("restored")


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def contents(database: Database) -> dict[str, str]:
    """The rows of every table whose rows a fence leaves alone, in short."""
    async with database.connection() as db:
        tables = [row["relname"] for row in await db.fetch(_TABLES)]
        text = "SELECT coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM {} t"
        return {table: await db.fetchval(text.format(table)) for table in tables}


@asynccontextmanager
async def daemons(url: str, folder: Path, count: int) -> AsyncIterator[None]:
    """Volunteers' daemons that take some milliseconds for an item."""

    async def check(item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.005)
        return {"dm": "DM"}

    running = []
    for n in range(count):
        name = f"daemon{n}"
        client = Client(url, client_id=name, data=folder / name, flush_every=0.05, backoff=Backoff(0.05, 0.5))
        running.append(Daemon(client, [ServiceWork("dm_check", check, {"source": name})], concurrency=4))
    tasks = [asyncio.create_task(daemon.run()) for daemon in running]
    try:
        yield
    finally:
        for daemon in running:
            daemon.stop()
        await asyncio.wait(tasks)


async def late_claim(server: Server, late: Volunteer) -> dict[str, Any]:
    """A claim that was handed out after the backup."""
    bucket = await late.bucket()
    assert await value(server.database, "SELECT claim_id FROM claim ORDER BY 1 DESC LIMIT 1") >= bucket["claim"]
    return bucket


async def test_under_load(start_server: StartServer, database: Database, empty: str, dsn: str, tmp_path: Path) -> None:
    """Acknowledged before the backup: lost 0.  Claimed after it: refused.  The daemons come back by themselves."""
    await configure(database, bucket_size=10)
    server = await start_server()
    port, admin = server.node.port, await server.admin()
    await admin.add(600)
    late = await server.volunteer("late")

    async with daemons(server.url, tmp_path, 2):

        async def under_way() -> bool:
            return await results(database) >= 60

        await eventually(under_way, "no results")
        async with database.connection() as db:
            stored = {tuple(row) for row in await db.fetch("SELECT item_id, claim_id FROM result")}
        await backups.back_up(Settings(database=dsn), tmp_path / "load.dump")
        bucket = await late_claim(server, late)
        await server.node.__aexit__(None, None, None)

        begun = time.monotonic()
        done = await backups.restore(Settings(database=empty), tmp_path / "load.dump")
        assert done.fence.claims_from > bucket["claim"] + fence.CLAIMS_SKIPPED // 2
        async with AsyncExitStack() as stack, opened(empty) as restored:
            async with restored.connection() as db:
                kept = {tuple(row) for row in await db.fetch("SELECT item_id, claim_id FROM result")}
            assert stored <= kept
            settings = Settings(port=port, ops_port=0, data=tmp_path)
            after = Server(await stack.enter_async_context(Node(settings, dsn=empty)), restored, stack)
            again, _ = await join_again(after, "late")
            answer = await again.submit(bucket)
            assert answer["type"] == "error", answer
            assert answer["code"] in ("unknown_bucket", "stale_claim", "not_owner")

            async def at_work() -> bool:
                return await results(restored) > len(kept)

            await eventually(at_work, "the daemons do not come back", 60)
            assert time.monotonic() - begun < 60

            async def settled() -> bool:
                return bool(await value(restored, "SELECT count(DISTINCT item_id) = 600 FROM result"))

            await eventually(settled, "not all is settled", 60)
            assert await value(restored, _DISAGREE) == 0


async def test_everything_is_there_again(
    server: Server, admin: Admin, volunteer: Volunteer, database: Database, empty: str, tmp_path: Path
) -> None:
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 4})
    await volunteer.push("service")
    await admin.add(16)
    await volunteer.submit(await volunteer.bucket())
    held = await volunteer.bucket()
    await server.node.parts.statistics.recorder.write()
    await server.node.__aexit__(None, None, None)
    before = await contents(database)
    await backups.back_up(Settings(database=database.dsn), tmp_path / "all.dump")
    assert (tmp_path / "all.dump").stat().st_mode & 0o077 == 0

    await backups.restore(Settings(database=empty), tmp_path / "all.dump")
    async with opened(empty) as restored:
        assert await contents(restored) == before
        assert await value(restored, "SELECT count(*) FROM bucket WHERE state = 'claimed'") == 0
        assert await value(restored, "SELECT count(*) FROM node WHERE state <> 'gone'") == 0
        assert await value(restored, "SELECT min(last) FROM numbering() WHERE highest > last") is None
        outside = (
            "SELECT min(last) FROM numbering() WHERE sequence::text IN ('item_item_id_seq', 'change_position_seq')"
        )
        assert await value(restored, outside) >= fence.NUMBERS_SKIPPED
        # Nobody but its owner may run what runs with the owner's rights, and it finds its own tables.
        assert not await value(
            restored, "SELECT has_function_privilege('pg_monitor', 'activity_keep(integer)', 'EXECUTE')"
        )
        await execute(restored, "SET search_path = ''; SELECT public.activity_keep(400); RESET search_path")
        await execute(restored, "INSERT INTO quarantine (service_id, item_id, attempts) VALUES (1, 1, 3)")
        changed = "SELECT sum(number) FROM count_change WHERE what = 'quarantined'"
        assert await value(restored, changed) == 1  # the triggers are there
    assert held["claim"] < fence.CLAIMS_SKIPPED


async def test_a_file_that_is_damaged_leaves_nothing_behind(database: Database, empty: str, tmp_path: Path) -> None:
    whole, cut, other = tmp_path / "whole.dump", tmp_path / "cut.dump", tmp_path / "other"
    size = await backups.back_up(Settings(database=database.dsn), whole)
    cut.write_bytes(whole.read_bytes()[: size - 3000])
    other.write_text("CREATE TABLE item ()")
    for file, said in ((cut, "damaged"), (other, "no backup"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ConfigError, match=said):
            await backups.restore(Settings(database=empty), file)
    with pytest.raises(ConfigError, match="there already"):
        await backups.back_up(Settings(database=database.dsn), whole)
    assert whole.stat().st_size == size
    assert not whole.with_name("whole.dump.part").exists()

    await backups.restore(Settings(database=empty), whole)  # the failures have left it empty
    with pytest.raises(ConfigError, match="not empty"):
        await backups.restore(Settings(database=empty), whole)


async def test_rows_without_their_sequences_are_not_served_before_a_fence(
    server: Server, admin: Admin, volunteer: Volunteer, database: Database
) -> None:
    await admin.add(4)
    claim = (await volunteer.bucket())["claim"]
    await execute(database, "SELECT setval('claim_number', 1, false)")
    with pytest.raises(ConfigError, match=rf"claim_number stands at None, and {claim} is taken"):
        await prepare_database(database.dsn, None)
    raised = await backups.raise_fence(database)
    assert raised.freed == 1
    assert raised.claims_from == claim + fence.CLAIMS_SKIPPED + 1
    await prepare_database(database.dsn, None)


async def test_a_node_that_runs_behind_a_fence_ends(server: Server, database: Database) -> None:
    await backups.raise_fence(database)
    await server.node.parts.work.lease._keep()
    await within(server.node.wait_until_stopped(), 10)
    assert server.node.failed


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://me:s%40cret@db.example.org:6432/work", "postgresql:///work?user=me&password=s%40cret&host=/tmp/pg"],
)
def test_no_password_stands_among_the_words_of_a_program(dsn: str) -> None:
    (word,), environment = archive._login(dsn)
    assert "cret" not in word
    assert environment == {"PGPASSWORD": "s@cret"}
    assert archive._login("postgresql://me@/work?host=%2Ftmp%2Fpg") == (
        ["--dbname=postgresql://me@/work?host=%2Ftmp%2Fpg"],
        {},
    )
