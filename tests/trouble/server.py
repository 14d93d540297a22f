"""A Postgres of its own on TCP, with a role for the node that owns no more than its database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from coordinator.embedded import EmbeddedPostgres
from coordinator.prepare import prepare_database
from coordinator.services import load_plugins, tables_of
from coordinator.store import migrate
from coordinator.store.pool import Database

SMALL = {"shared_buffers": "32MB", "max_locks_per_transaction": "64", "max_connections": "40"}

TABLESPACE_SIZE = 256 << 20
"""Bytes of the disk on which the tables stand."""

PATIENCE = 15.0
"""Seconds within which the server takes a connection of the superuser, or carries out a statement."""

_PROCESSES_OF_NODES = "SELECT pid FROM pg_stat_activity WHERE usename = 'node' AND pid <> pg_backend_pid()"

_A_PROCESS_OF_NODES = f"SELECT min(pid) FROM ({_PROCESSES_OF_NODES}) p"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class TroubledPostgres:
    """The server; `dsn` is the node's, with its password in a file that may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.server = EmbeddedPostgres(
            folder / "postgres", {**SMALL, "listen_addresses": "127.0.0.1", "port": str(self.port)}
        )
        self.passfile = folder / "passfile"
        self.disk = folder / "disk"
        self.has_small_disk = False

    @property
    def admin_dsn(self) -> str:
        """The superuser's, over the socket, to another database."""
        return self.server.dsn.replace("/coordinator", "/postgres")

    def dsn_of(self, port: int) -> str:
        """The node's, by some port."""
        return f"postgresql://node@127.0.0.1:{port}/coordinator?passfile={self.passfile}"

    async def prepare(self) -> None:
        """Make the role, and the database that belongs to it."""
        self.has_small_disk = _mount(self.disk, TABLESPACE_SIZE)
        password = self.new_password()
        await self.execute(f"CREATE ROLE node LOGIN PASSWORD '{password}'", "ALTER DATABASE coordinator OWNER TO node")
        if self.has_small_disk:
            shutil.chown(self.disk, *_owner(self.server.root / "data"))
            await self.execute(f"CREATE TABLESPACE small LOCATION '{self.disk}'")
            await self.execute("ALTER DATABASE coordinator SET TABLESPACE small")
        database = Database(self.dsn_of(self.port))
        await database.open()
        await migrate.migrate(database, tables_of(load_plugins()))
        await database.close()
        await prepare_database(database.dsn, None)

    def new_password(self) -> str:
        """Draw a password and write it where the node finds it."""
        password = secrets.token_hex(16)
        self.passfile.touch(mode=0o600)
        self.passfile.write_text(f"*:*:*:*:{password}\n")
        return password

    async def execute(self, *statements: str) -> Any:
        """Run statements as superuser beside the node's database; returns the first value of the last one."""
        async with self.connected() as db:
            return [await db.fetchval(statement) for statement in statements][-1]

    @asynccontextmanager
    async def connected(self, database: str = "postgres") -> AsyncIterator[Any]:
        """A connection of the superuser."""
        dsn = self.server.dsn.replace("/coordinator", f"/{database}")
        connection = await asyncpg.connect(dsn, timeout=PATIENCE, command_timeout=PATIENCE)
        try:
            yield connection
        finally:
            with contextlib.suppress(asyncpg.PostgresError, OSError, asyncpg.InterfaceError):
                await connection.close(timeout=PATIENCE)

    async def set(self, setting: str, value: str | None) -> None:
        """Set something for the whole server, or reset it."""
        await self.execute(
            f"ALTER SYSTEM RESET {setting}" if value is None else f"ALTER SYSTEM SET {setting} = '{value}'",
            "SELECT pg_reload_conf()",
        )

    async def set_for_node(self, setting: str, value: str | None) -> None:
        """Set something for the node's connections, which are made anew; or reset it, for those to come."""
        await self.execute(f"ALTER ROLE node {f'RESET {setting}' if value is None else f'SET {setting} = {value!r}'}")
        await self.end_connections()

    async def end_connections(self) -> None:
        """End all connections of the node."""
        await self.execute(f"SELECT count(pg_terminate_backend(pid)) FROM ({_PROCESSES_OF_NODES}) p")

    async def kill_a_process(self) -> None:
        """Kill -9 a process of the node's: the server recovers as after a crash."""
        async with asyncio.timeout(PATIENCE):
            while (pid := await self.execute(_A_PROCESS_OF_NODES)) is None:
                pass
        os.kill(pid, signal.SIGKILL)


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def _mount(folder: Path, size: int) -> bool:
    """Give a folder a small disk of its own, where this account may do so."""
    folder.mkdir(mode=0o755)
    command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def troubled_postgres() -> Iterator[TroubledPostgres]:
    """Start one, ready for a node; it is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-trouble-", dir="/tmp"))
    folder.chmod(0o755)
    postgres = TroubledPostgres(folder)
    postgres.server.start()
    try:
        asyncio.run(postgres.prepare())
        yield postgres
    finally:
        postgres.server.stop()
        if postgres.has_small_disk:
            subprocess.run(["umount", "-l", postgres.disk], check=False)
        shutil.rmtree(folder)
