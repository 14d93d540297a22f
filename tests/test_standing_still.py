"""A database that stands still: it takes connections and statements, and answers none.  And a node that does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic, sleep

import asyncpg
import pytest
from websockets.frames import Opcode

from coordinator.app import CLOSE_WITHIN, Node
from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres
from coordinator.store import pool
from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.flow.outage import Outage, standing_still
from tests.harness import Server, secret_of
from tests.serve.test_strangers import on_uvloop
from tests.serve.tools import RawPeer, eventually

pytestmark = pytest.mark.measured


_NO_SPACE = """
CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file: No space left on device';
END $$;
CREATE TRIGGER no_space BEFORE UPDATE ON node FOR EACH ROW EXECUTE FUNCTION no_space()"""


@asynccontextmanager
async def working(database: Database) -> AsyncIterator[asyncio.Task[None]]:
    """A task that waits for the answer to a statement, in a transaction."""
    begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with database.transaction() as db:
            begun.set_result(db.get_server_pid())
            await db.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(work())
    pid = await begun
    async with database.connection() as db:
        while not await db.fetchval("SELECT query LIKE '%pg_sleep%' FROM pg_stat_activity WHERE pid = $1", pid):
            pass
    task.set_name(str(pid))
    yield task


async def test_a_task_that_is_cancelled_ends_though_its_connection_breaks(database: Database, dsn: str) -> None:
    """It met the failure of its connection instead, and slept on."""
    other = await asyncpg.connect(dsn)
    async with working(database) as task:
        task.cancel()
        await other.execute("SELECT pg_terminate_backend($1)", int(task.get_name()))
        with pytest.raises(asyncio.CancelledError):
            await within(asyncio.shield(task), 15)
    await other.close()


async def test_a_node_ends_in_time_though_its_database_stands_still(
    postgres: EmbeddedPostgres, dsn: str, database: Database, tmp_path: Path
) -> None:
    settings = Settings(port=0, ops_port=0, data=tmp_path, drain_grace=1.0)
    node = await Node(settings, dsn=dsn).__aenter__()
    tasks = list(node.tasks)
    with standing_still(postgres):
        begun = monotonic()
        await within(node.drain(), 20)
        await node.__aexit__(None, None, None)
        assert monotonic() - begun < settings.drain_grace + CLOSE_WITHIN + 4
        assert all(task.done() for task in tasks)


async def test_a_node_ends_in_time_though_its_buckets_cannot_be_released(
    start_server: StartServer, database: Database
) -> None:
    """As with a full disk: the end of a session is tried again and again."""
    server = await start_server()
    admin, volunteer = await server.admin(), await server.volunteer("volunteer")
    await admin.add(3)
    await volunteer.bucket()
    async with database.connection() as db:
        await db.execute(_NO_SPACE.replace("ON node", "ON bucket"))

    begun = monotonic()
    await server.node.__aexit__(None, None, None)
    assert monotonic() - begun < CLOSE_WITHIN + 1


async def test_a_hello_is_answered_that_the_database_cannot_be_reached(
    postgres: EmbeddedPostgres, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was closed without a word, as one that never said hello."""
    monkeypatch.setattr(pool, "STATEMENT_DEADLINE", 2.0)
    server = await start_server(hello_timeout=1.0, node_lease=60.0)
    peer = await server.client()
    with standing_still(postgres):
        answer = await within(peer.ask_for("hello", protocol=1, client_id="ada", secret=secret_of("ada")), 15)
    assert (answer["type"], answer["code"]) == ("error", "unavailable")
    assert answer["retry_after"] > 0


@pytest.mark.long
async def test_a_database_that_cannot_store_is_told_with_the_reason(
    start_server: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a full disk: all that is asked for is answered, and nothing can be written."""
    server = await start_server(node_lease=3.0)
    readiness = server.node.parts.work.readiness

    async def ready() -> bool:
        return (await readiness.report()).ready

    async def unready() -> bool:
        return not await ready()

    assert await ready()

    async with server.database.connection() as db:
        await db.execute(_NO_SPACE)
        await eventually(unready, "it is told that nothing can be stored", 2)
        assert (await readiness.report()).reasons == [
            "The database stores nothing: could not extend file: No space left on device."
        ]
        await asyncio.sleep(1)  # the log, too, has looked
        await db.execute("DROP TRIGGER no_space ON node")

    await eventually(ready, "it is ready again", 20)
    told = [line for line in capsys.readouterr().out.splitlines() if "in trouble" in line]
    assert len(told) == 1
    assert "No space left on device" in told[0]


async def test_a_node_that_has_lost_its_lease_ends(
    postgres: EmbeddedPostgres, dsn: str, tmp_path: Path, database: Database
) -> None:
    """Not alone: others would free its buckets."""
    settings = Settings(port=0, ops_port=0, data=tmp_path, node_lease=4.0)
    async with Node(Settings(port=0, ops_port=0, data=tmp_path, node_name="other"), dsn=dsn):
        node = await Node(settings, dsn=dsn).__aenter__()

        async def knows_the_other() -> bool:
            return not node.parts.core.signals.alone

        await eventually(knows_the_other, "the node knows that it is not alone")
        with standing_still(postgres):
            await within(node.wait_until_stopped(), settings.node_lease)  # before others free its buckets
            assert node.failed
            begun = monotonic()
            await within(node.__aexit__(None, None, None), 15)
            assert monotonic() - begun < CLOSE_WITHIN + 4


async def test_a_commit_that_no_standby_has_is_not_answered_as_one_that_lasts(database: Database, dsn: str) -> None:
    """A server that is told to wait no longer for its standby commits, and only warns."""

    async def write() -> str:
        async with database.transaction() as db:
            await db.execute("INSERT INTO item (key) VALUES ('written')")
        return "stored"

    assert await Outage(dsn).give_up_commit(write()) is None
    async with database.connection() as db:
        assert await db.fetchval("SELECT count(*) FROM item WHERE key = 'written'") == 1


def stand_still() -> None:
    """As SIGSTOP lets all do that is here."""
    sleep(1.0)


async def test_a_peer_that_answers_while_the_node_stands_still_is_not_cut_off(dsn: str, tmp_path: Path) -> None:
    """On uvloop, as in production: it runs what is due before it reads what has come."""
    settings = Settings(port=0, ops_port=0, data=tmp_path, ping_interval=0.1, ping_timeout=0.2, hello_timeout=0.3)

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(Node(settings, dsn=dsn))
            peer = await RawPeer.open(Server(node, Database(dsn), stack))
            stand_still()
            peer.say("hello", protocol=1, client_id="ada", secret=secret_of("ada"))
            while (await peer.read())[0] != Opcode.PING:
                pass
            peer.frame(b"", opcode=Opcode.PONG)
            stand_still()
            for _ in range(5):
                opcode, _ = await peer.read()
                assert opcode != Opcode.CLOSE
                if opcode == Opcode.PING:
                    peer.frame(b"", opcode=Opcode.PONG)

    await asyncio.to_thread(on_uvloop, scenario)
