"""A fresh Postgres and a real `coordinator serve`, and their cost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from coordinator import credentials
from coordinator.embedded import EmbeddedPostgres
from coordinator.model import ServiceId
from coordinator.prepare import prepare_database
from coordinator.services import load_plugins, tables_of
from coordinator.store import building, migrate, tokens
from coordinator.store.pool import Database
from tests.bench.peer import Peer, secret_of
from tests.bench.rows import RUN, SIZE

TICKS = os.sysconf("SC_CLK_TCK")

START = 30.0
"""Seconds in which a process has to be up."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of everything until now: CPU seconds, and the node's own count of its statements."""

    server: float
    postgres: float
    calls: int
    rows: int
    milliseconds: float
    pool_waits: int
    by_name: dict[str, tuple[int, int, float]]

    def since(self, before: Cost) -> Cost:
        names = {
            name: tuple(a - b for a, b in zip(now, before.by_name.get(name, (0, 0, 0.0)), strict=True))
            for name, now in self.by_name.items()
        }
        return Cost(
            self.server - before.server,
            self.postgres - before.postgres,
            self.calls - before.calls,
            self.rows - before.rows,
            self.milliseconds - before.milliseconds,
            self.pool_waits - before.pool_waits,
            {name: spent for name, spent in names.items() if spent[0]},  # type: ignore[misc]  # three each
        )


class World:
    """One Postgres and one node; a node may be stopped and another one started."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres) -> None:
        self.folder = folder
        self.postgres = postgres
        self.dsn = postgres.dsn
        self.url = ""
        self.ops_url = ""
        self.token = ""
        self._server: asyncio.subprocess.Process | None = None
        self._admin: Peer | None = None

    @property
    def pid(self) -> int:
        """The node's."""
        assert self._server is not None
        return self._server.pid

    async def start(self, *program: str, flags: Sequence[str] = ()) -> None:
        """Start a node with default settings but those flags; `program` is what to run for `-m coordinator`."""
        log = self.folder / "server.log"
        words = ["serve", "--database", self.dsn, "--port", "0", "--ops-port", "0", "--log-format", "json", *flags]
        with log.open("wb") as file:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable, *(program or ("-m", "coordinator")), *words, stdout=file, stderr=file
            )
        async with asyncio.timeout(START):
            while (ports := _ports(log)) is None:
                assert self._server.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        self.url, self.ops_url = f"ws://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        self._admin = await self.admin()

    async def stop(self) -> None:
        """End the node."""
        if self._admin is not None:
            await self._admin.close()
            self._admin = None
        if self._server is not None and self._server.returncode is None:
            self._server.send_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            try:
                async with asyncio.timeout(15):
                    await self._server.wait()
            except TimeoutError:
                self._server.kill()
                await self._server.wait()
        self._server = None

    async def admin(self) -> Peer:
        """A new connection to the admin channel."""
        peer = await Peer.open(f"{self.url}/v1/admin")
        await peer.request("hello", protocol=1, token=self.token)
        return peer

    # Cost

    def _postmaster(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n")[0])

    async def cost(self) -> Cost:
        """Cost of the node and of Postgres until now."""
        assert self._admin is not None
        load = (await self._admin.request("stats"))["database"]
        # What the looking itself asks is not part of anything.
        rows = [row for row in load["statements"] if row["statement"] not in ("statistics.state", "statistics.fronts")]

        return Cost(
            _cpu(self.pid),
            sum(_cpu(pid) for pid in _family(self._postmaster())),
            sum(row["calls"] for row in rows),
            sum(row["rows"] for row in rows),
            sum(row["milliseconds"] for row in rows),
            load["pool_waits"],
            {row["statement"]: (row["calls"], row["rows"], row["milliseconds"]) for row in rows},
        )

    def background(self) -> float:
        """CPU seconds until now of those processes of Postgres that serve no connection."""
        children = _family(self._postmaster())[1:]
        return sum(_cpu(pid) for pid in children if b" coordinator " not in _command(pid))

    async def settled(self, service: str) -> int:
        """How many items of a service are settled."""
        assert self._admin is not None
        services = (await self._admin.request("stats"))["services"]
        return int(next(row for row in services if row["service"] == service)["settled"])

    def resident(self) -> int:
        """Bytes of the node's memory that are its own."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no Private_Dirty in smaps_rollup")

    # The database

    async def sql(self, *statements: str) -> Any:
        """Run statements on a connection of its own; return the first value of the last."""
        db = await asyncpg.connect(self.dsn, command_timeout=1800)
        try:
            found = None
            for statement in statements:
                found = await db.fetchval(statement)
            return found
        finally:
            await db.close()

    async def register(self, names: Sequence[str], service: str = "dm_check") -> None:
        """Add clients that have joined; not over the wire, which takes only so many from one address a minute."""
        db = await asyncpg.connect(self.dsn)
        await db.execute(
            """INSERT INTO client (client_id, secret_hash, screen_name)
               SELECT id, hash, id FROM unnest($1::text[], $2::bytea[]) AS c (id, hash) ON CONFLICT DO NOTHING""",
            names,
            [credentials.hash_secret(secret_of(name)) for name in names],
        )

        await db.execute(
            """INSERT INTO membership (client_id, service_id, profile)
               SELECT id, service_id, jsonb_build_object('source', id) FROM unnest($1::text[]) AS c (id), service
                WHERE name = $2 ON CONFLICT DO NOTHING""",
            names,
            service,
        )
        await db.close()

    async def wait_items(self, service: str, count: int) -> None:
        """Let exactly so many items wait for a service, with none of its buckets open and no result stored."""
        await self.sql(
            "DELETE FROM bucket_items c USING bucket b WHERE b.bucket_id = c.bucket_id AND b.state <> 'done'",
            "DELETE FROM open_bucket o USING bucket b WHERE b.bucket_id = o.bucket_id AND b.state <> 'done'",
            "DELETE FROM bucket WHERE state <> 'done'",
            "TRUNCATE waiting, result, return_block",
            f"""INSERT INTO item (key) SELECT 'account' || n FROM generate_series(
                    (SELECT count(*) FROM item) + 1, {count}) n""",
            f"""SELECT put_waiting(s.service_id, ARRAY (SELECT item_id FROM item ORDER BY item_id LIMIT {count}),
                                   now(), now(), 100)
                  FROM service s WHERE s.name = '{service}'""",
            "UPDATE membership SET streak = 0, wait_until = NULL",
            "VACUUM waiting, bucket, bucket_items, open_bucket, membership",
        )

    async def ready_buckets(self, service: str, count: int) -> None:
        """Make exactly so many ready buckets of the usual size; nothing waits, and no result is stored."""
        await self.wait_items(service, count * SIZE)
        database = Database(self.dsn, size=2)
        await database.open()
        async with database.connection() as db:
            service_id = ServiceId(await db.fetchval("SELECT service_id FROM service WHERE name = $1", service))
            made, start = 1, building.QUEUE_START
            while made:
                async with db.transaction():
                    await building.lock(db, [service_id])  # the node's own builder may take part
                    made, start = await building.make(db, service_id, RUN * SIZE, SIZE, short=False, start=start)
            await db.execute("VACUUM waiting, bucket, bucket_items, open_bucket")
        await database.close()

    async def pool_filled(self, service: str, count: int) -> None:
        """Wait until so many buckets are ready: the node's clock sees to it."""
        statement = f"""SELECT count(*) FROM bucket b JOIN service s USING (service_id)
                         WHERE b.state = 'ready' AND s.name = '{service}'"""
        db = await asyncpg.connect(self.dsn)
        async with asyncio.timeout(START):
            while await db.fetchval(statement) < count:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
        await db.close()


DEFAULTS = {
    "shared_buffers": "128MB",
    "wal_compression": "off",
    "min_wal_size": "80MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "5min",
    "jit": "on",
}
"""Settings of Postgres that the embedded one has changed, as they are without that."""


@asynccontextmanager
async def world(postgres_bin: Path | None = None) -> AsyncIterator[World]:
    """A Postgres in a folder of its own, ready for nodes; no node yet.  All is gone at the end.

    With `postgres_bin`, that of this folder of programs, with default settings.
    """
    folder = await asyncio.to_thread(folder_for_postgres, "bench")
    postgres = EmbeddedPostgres(folder, DEFAULTS if postgres_bin else {}, bindir=postgres_bin)
    await asyncio.to_thread(postgres.start)
    made = World(folder, postgres)
    try:
        made.token = await prepared(postgres.dsn)
        yield made
    finally:
        await made.stop()
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(folder)


async def prepared(dsn: str) -> str:
    """Make a database ready for nodes; returns the token of an admin."""
    database = Database(dsn, size=2)
    await database.open()
    await migrate.migrate(database, tables_of(load_plugins()))

    new = credentials.make_token()
    async with database.connection() as db:
        await tokens.issue(db, new.token_id, new.hash, "admin", "test", None, None)
    await database.close()

    await prepare_database(dsn, None)
    return new.token


def folder_for_postgres(name: str) -> Path:
    """Make a folder that the account of Postgres may enter."""
    made = Path(tempfile.mkdtemp(prefix=f"coordinator-{name}-", dir="/tmp"))
    made.chmod(0o755)
    return made


class Program:
    """A process of this bench: commands go in and answers come out, as JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, module: str, *words: str) -> Program:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20
            )
        )

    async def say(self, do: str, **fields: Any) -> None:
        """Let it begin something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        await self.process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        """Wait for its next answer."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "a process of the bench has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        await self.say(do, **fields)
        return await self.hear()

    async def end(self) -> None:
        """End it, whatever it does."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    @property
    def cpu(self) -> float:
        """CPU seconds until now."""
        return _cpu(self.process.pid)


def _ports(log: Path) -> tuple[int, int] | None:
    for line in log.read_text().splitlines():
        if '"serving"' in line:
            told = json.loads(line)
            return int(told["port"]), int(told["ops_port"])
    return None


def _cpu(pid: int) -> float:
    """CPU seconds of a process, and of those children of it that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def _family(parent: int) -> Sequence[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]
