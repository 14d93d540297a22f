"""PgBouncer before Postgres: in session mode all works; in the others the node says what to change."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.embedded.account import PostgresAccount
from coordinator.errors import ConfigError
from coordinator.store.connecting import SHARES_SESSIONS
from coordinator.store.pool import Database
from tests.trouble.kinds import KINDS
from tests.trouble.server import TroubledPostgres, free_port
from tests.trouble.watch import watching

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
"""Debian's package `pgbouncer`; None where it is not installed."""

_CONFIG = """
[databases]
coordinator = host=127.0.0.1 port={postgres} dbname=coordinator user=node password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = {mode}
default_pool_size = 20
unix_socket_dir =
{more}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Something that was tried, and what was seen."""

    name: str
    seen: str
    good: bool


@asynccontextmanager
async def pgbouncer(postgres: TroubledPostgres, mode: str, more: str = "") -> AsyncIterator[str]:
    """One before that server; the DSN that leads through it."""
    assert PROGRAM is not None
    port = free_port()
    password = postgres.passfile.read_text().strip().rpartition(":")[2]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        text = _CONFIG.format(postgres=postgres.port, password=password, port=port, mode=mode, more=more)
        config = _write(Path(folder), text)
        account = PostgresAccount.owning(postgres.server.root / "data")
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "-q", config, stderr=asyncio.subprocess.DEVNULL, **account.run_as
        )
        try:
            await _listens(port)
            yield f"postgresql://node@127.0.0.1:{port}/coordinator"
        finally:
            process.terminate()
            await process.wait()


def _write(folder: Path, config: str) -> Path:
    folder.chmod(0o755)
    path = folder / "pgbouncer.ini"
    path.write_text(config)
    return path


async def _listens(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def session_mode(postgres: TroubledPostgres) -> Outcome:
    """Let a node work behind it, also while connections are ended."""
    (ended,) = (kind for kind in KINDS if kind.name == "ended")
    async with pgbouncer(postgres, "session") as dsn:
        with tempfile.TemporaryDirectory() as folder:
            async with watching(postgres, Path(folder), dsn) as watch:
                sight = await watch.see(ended, 1.0)
    seen = f"{dict(sight.answers)}, normal after {sight.normal_after:.1f} s {'; '.join(sight.wrong)}"
    return Outcome("PgBouncer, session mode", seen, not sight.wrong)


async def shared_mode(postgres: TroubledPostgres, mode: str, more: str = "") -> Outcome:
    """Open a pool behind it, which is refused."""
    seen = "it was taken"
    async with pgbouncer(postgres, mode, more) as dsn:
        database = Database(dsn)
        try:
            await database.open()
        except ConfigError as refusal:
            seen = str(refusal)
        finally:
            await database.close()
    return Outcome(f"PgBouncer, {mode} mode {more}".strip(), seen, seen == SHARES_SESSIONS)


async def try_all(postgres: TroubledPostgres) -> list[Outcome]:
    """Try all modes; nothing where PgBouncer is not installed."""
    if PROGRAM is None:
        return []
    return [
        await session_mode(postgres),
        await shared_mode(postgres, "transaction"),
        await shared_mode(postgres, "transaction", "server_round_robin = 1"),
    ]
