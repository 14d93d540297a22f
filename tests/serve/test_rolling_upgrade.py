"""Nodes of two builds beside each other: one schema step forward, and back again, under the load of 200 clients."""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import asyncpg
import pytest

from coordinator.client import Backoff, Client
from coordinator.client.daemon import Daemon
from coordinator.client.service_work import ServiceWork
from coordinator.client.session import Session
from coordinator.errors import Refused
from coordinator.store import migrate
from coordinator.store.pool import Database
from coordinator.wire.client import Stored, Submit
from tests.builds import Build, build, former_commit
from tests.chaos.proxy import Proxy
from tests.databases import Databases, beside
from tests.e2e.test_readme import a_free_port
from tests.harness import Admin
from tests.serve.tools import configure, eventually, results, value

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CLIENTS, BUCKET = 200, 8

OPEN_ITEMS = 2400
"""Items that are kept open while nodes are exchanged: more than a bucket for each client."""

BETWEEN = 400
"""Results to wait for before the next node is exchanged."""

FLAGS = (
    "--ops-port=0", "--drain-grace=3", "--registrations-per-minute=60000", "--log-format=json", "--registration=open",
)  # fmt: skip

STEP = migrate.Migration(
    len(migrate.shipped()) + 1,
    "next",
    "-- additive\n"
    + "".join(
        f"ALTER TABLE {table} ADD COLUMN next_{table} text;\n"
        for table in ("service", "item", "enrolment", "waiting", "bucket", "claim", "result", "client", "membership")
    )
    + "CREATE TABLE next_table (item_id bigint PRIMARY KEY);",
)
"""A step of the newer build: whatever it may add to the tables of the hot path."""

CHARGED = """
SELECT count(*) FROM membership
 WHERE health <> 'ok' OR dead > 0 OR bad_submits > 0 OR given_back > 0 OR disconnects > 0"""

FORMER = former_commit()


class Answers:
    """The answers that clients got: what was refused, and the results that were acknowledged, with their claims.

    What a node refuses while it drains is told apart: it frees what is held when its grace is over, and a submit that
    comes too late for that is refused (`stale_claim`); the client repeats it after it has recollected the bucket.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: Counter[str] = Counter()
        self.stored: set[tuple[int, int]] = set()
        real = Session.request

        async def request(session: Session, message: Any, *words: Any, **more: Any) -> Any:
            try:
                answer = await real(session, message, *words, **more)
            except Refused as refusal:
                self.refused[f"{refusal.code}, draining" if session.draining else refusal.code] += 1
                raise
            if isinstance(answer, Stored) and isinstance(message, Submit):
                self.stored |= {(result["item"], message.claim) for result in json.loads(bytes(message.results))}
            return answer

        monkeypatch.setattr(Session, "request", request)


class Fleet:
    """Daemons that work at whatever node the balancer leads them to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.seconds = 0.6
        """Seconds that a check takes."""
        self._daemons = []
        for n in range(CLIENTS):
            client = Client(url, client_id=f"c{n}", data=folder / f"c{n}", flush_every=0.2, backoff=Backoff(0.05, 0.5))
            self._daemons.append(Daemon(client, [ServiceWork("dm_check", self._check, {"source": "c"})], concurrency=2))
        self._tasks = [asyncio.create_task(daemon.run()) for daemon in self._daemons]

    async def _check(self, item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(self.seconds)
        return {"dm": "DM"}

    async def end(self) -> None:
        for daemon in self._daemons:
            daemon.stop()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.result()


class NodeOf:
    """A node of one build, as a process."""

    def __init__(self, build: Build, dsn: str, folder: Path) -> None:
        self.build = build
        self._dsn = dsn
        self._folder = folder
        self._log = folder / "log"
        self._process: Process | None = None
        self.port = a_free_port()

    async def start(self) -> None:
        """Start it; it serves."""
        self._folder.mkdir()
        words = f"--database={self._dsn}", f"--data={self._folder}", f"--port={self.port}", *FLAGS
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.build.command("serve", *words), cwd=self._folder, env=self.build.environment, stderr=log
            )
        await eventually(self._is_ready, "a node is not ready", 60)

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self._log.read_text()

        def look() -> bool:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
            return False

        return await asyncio.to_thread(look)

    async def end(self) -> None:
        """Let it drain and end."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        assert await self._process.wait() == 0

    def errors(self) -> list[str]:
        """Return the lines of its log that tell of a fault."""
        return [line for line in self._log.read_text().splitlines() if json.loads(line)["level"] == "error"]


class Rollout:
    """Nodes behind a balancer, one of which is exchanged after the other."""

    def __init__(self, dsn: str, database: Database, folder: Path, stack: AsyncExitStack) -> None:
        self._dsn = dsn
        self._database = database
        self._folder = folder
        self._stack = stack
        self._serving: list[NodeOf] = []
        self.nodes: list[NodeOf] = []
        turns = itertools.count()
        self.balancer = Proxy(lambda: self._serving[next(turns) % len(self._serving)].port)

    async def start(self, of: Build) -> None:
        """Start one more node."""
        node = NodeOf(of, self._dsn, self._folder / f"node{len(self.nodes)}")
        self.nodes.append(node)
        self._stack.push_async_callback(node.end)
        await node.start()
        self._serving.append(node)

    async def exchange_all(self, by: Build) -> None:
        """Exchange one node after the other by one of another build; each time, wait for results of both."""
        for node in list(self._serving):
            await self.start(by)
            await self.more()
            self._serving.remove(node)  # as a balancer does that asks /readyz
            await node.end()
            await self.more()

    async def more(self) -> None:
        """Wait for more results."""
        before = await results(self._database)

        async def enough() -> bool:
            return await results(self._database) >= before + BETWEEN

        await eventually(enough, "nothing is settled any more", 60)


class Feeder:
    """Keeps some items open, by requests of an admin."""

    def __init__(self, url: str, database: Database, token: str) -> None:
        self._url = url
        self._database = database
        self._token = token
        self.items = 0

    async def run(self) -> None:
        """Add items whenever few are left, until cancelled."""
        while True:
            if self.items - await results(self._database) < OPEN_ITEMS:
                await self.add()
            await asyncio.sleep(0.2)

    async def add(self) -> None:
        async with AsyncExitStack() as stack:
            admin = await Admin.open(f"{self._url}/v1/admin", stack)
            await admin.ok("hello", protocol=1, token=self._token)
            await admin.add(OPEN_ITEMS, f"of{self.items}_", services=["dm_check"])
        self.items += OPEN_ITEMS


@pytest.fixture
async def unmade(databases: Databases) -> AsyncIterator[str]:
    """A database in which nothing is."""
    name = "coordinator_rollout"
    connection = await asyncpg.connect(databases.dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    yield beside(databases.dsn, name)
    await databases.drop(name)


async def stored(database: Database) -> set[tuple[int, int]]:
    """Return all results: item and claim."""
    async with database.connection() as db:
        return {(row["item_id"], row["claim_id"]) for row in await db.fetch("SELECT item_id, claim_id FROM result")}


async def test_one_step_forward_and_back(unmade: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost 0, refused 0 beyond `draining`, and nobody is charged for it.

    The build before is that of a former commit or, where no such commit can serve this schema, this one without STEP.
    """
    before = await asyncio.to_thread(build, FORMER, tmp_path / "before")
    after = await asyncio.to_thread(build, None, tmp_path / "after")
    after.add_migration(STEP)
    before.run("db", "migrate", f"--database={unmade}")
    token = before.run("token", "issue", "--role=admin", "--label=feeder", f"--database={unmade}", "--json")
    answers = Answers(monkeypatch)

    async with AsyncExitStack() as stack:
        database = Database(unmade)
        await database.open()
        stack.push_async_callback(database.close)
        rollout = Rollout(unmade, database, tmp_path, stack)
        balancer = await stack.enter_async_context(rollout.balancer)
        await rollout.start(before)
        await configure(database, bucket_size=BUCKET)
        await rollout.start(before)

        url = f"ws://127.0.0.1:{balancer.port}"
        feeder = Feeder(url, database, json.loads(token)["token"])
        await feeder.add()
        fleet = Fleet(url, tmp_path)
        stack.push_async_callback(fleet.end)
        feeding = asyncio.create_task(feeder.run())
        await rollout.more()

        assert "next" in await asyncio.to_thread(after.run, "db", "migrate", f"--database={unmade}")
        await rollout.exchange_all(by=after)
        assert "next" not in await asyncio.to_thread(before.run, "db", "status", f"--database={unmade}")
        await rollout.exchange_all(by=before)

        feeding.cancel()
        await asyncio.wait([feeding])
        fleet.seconds = 0.05

        async def all_done() -> bool:
            return bool(await value(database, "SELECT (SELECT count(*) FROM item) = (SELECT count(*) FROM result)"))

        await eventually(all_done, "not all is settled", 60)
        assert await value(database, "SELECT count(DISTINCT item_id) FROM result") == await results(database)
        assert await value(database, "SELECT count(*) FROM client") == CLIENTS
        assert await value(database, CHARGED) == 0
        rows = await stored(database)

    assert answers.stored <= rows
    assert len(answers.stored) > len(rows) / 2
    assert {code for code in answers.refused if not code.endswith(", draining")} <= {"draining"}, answers.refused
    assert [line for node in rollout.nodes if node.build is after for line in node.errors()] == []


def test_the_build_before_is_that_of_a_former_commit() -> None:
    if FORMER is None:
        pytest.skip(
            "no commit before this one can serve this schema (git log -- coordinator/store/migrations): the rolling "
            "upgrade was tried between this build and itself, one additive step newer"
        )
