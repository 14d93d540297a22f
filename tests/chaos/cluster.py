"""Two Postgres servers of one run: a primary that waits for its streaming standby, and can be broken in many ways."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg

from coordinator.embedded import EmbeddedPostgres
from coordinator.embedded.account import PostgresAccount
from tests.chaos.programs import (
    BINARIES,
    Disk,
    can_fake_time,
    copy_data,
    with_another_clock,
    with_forgetful_disk,
)
from tests.chaos.proxy import Proxy

SETTINGS = {
    "shared_buffers": "64MB",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "wal_keep_size": "64MB",
    "checkpoint_timeout": "30s",
    "hot_standby": "on",
    "max_connections": "60",
    "wal_receiver_status_interval": "1s",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_retrieve_retry_interval": "1s",
}
"""Small, so that a small disk does, and quick to notice that the other server is gone."""

DISK = 320 << 20
"""Bytes of a server's disk."""

PATIENCE = 60.0

_FOLLOWED = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


class PostgresServer:
    """One server on a disk of its own; `small_disk` says whether that can be filled, `clock_steps` whether the clock
    can be set."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        folder.mkdir(mode=0o755)
        self.small_disk = _mount(folder)
        self._clock = folder.parent / f"{folder.name}-clock"
        self._clock.write_text("+0\n")
        self.clock_steps = disk == "plain" and can_fake_time()

        bindir, programs = None, folder.parent / f"{folder.name}-bin"
        if self.clock_steps:
            bindir = with_another_clock(programs, self._clock)
        elif disk != "plain":
            bindir = with_forgetful_disk(programs, folder / "data", folder / "disk", lies=disk == "lying")
        self.followers = Proxy(lambda: self.socket)
        """The way by which a standby follows it."""
        self.server = EmbeddedPostgres(folder, SETTINGS, start_timeout=PATIENCE, bindir=bindir)

    @property
    def socket(self) -> Path:
        """The socket that it listens on while it runs."""
        return self.folder / "sock" / ".s.PGSQL.5432"

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/coordinator?host={self.folder / 'sock'}&port=5432"

    async def start(self) -> None:
        """Start it, if it does not run; returns when it takes connections."""
        await asyncio.to_thread(self.server.start)

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def connect(self, within: float) -> Any:
        """Open a connection that no fault ends on purpose."""
        return await asyncpg.connect(self.dsn, timeout=within, server_settings={"application_name": "chaos"})

    async def execute(self, *statements: str) -> Any:
        """Run statements on a connection of its own; returns the first value of the last."""
        db = await self._connect_when_there_is_room()
        try:
            found = None
            for statement in statements:
                found = await db.fetchval(statement)
            return found
        finally:
            db.terminate()

    async def _connect_when_there_is_room(self) -> Any:
        """Open a connection; a fault may have taken all that the server has left."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await self.connect(PATIENCE)
                except asyncpg.TooManyConnectionsError:
                    await asyncio.sleep(0.1)

    def processes(self) -> list[int]:
        """The pids of the postmaster, first, and of its children; none if it does not run."""
        try:
            postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split("\n", maxsplit=1)[0])
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        except (OSError, ValueError):
            return []
        return [postmaster, *map(int, children.split())]

    def kill(self) -> None:
        """Kill the postmaster and all of its children, as the kernel does that is out of memory."""
        for pid in self.processes():
            self.kill_one(pid)

    async def crash(self) -> None:
        """Kill it; returns when it is gone, and can be started."""
        pids = self.processes()
        self.kill()
        while any(map(_lives, pids)):  # noqa: ASYNC110 - it is no child of this process
            await asyncio.sleep(0.01)

    def kill_one(self, pid: int) -> None:
        """Kill one of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop all of its processes; they go on at the end."""
        stopped = self.processes()
        try:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill its disk to the last byte; there is room again at the end."""
        ballast = self.folder / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass
            yield
        finally:
            ballast.unlink()

    async def begin_to_forget(self) -> None:
        """Let the forgetful disk have all that is there by now."""
        await self.stop()
        await asyncio.to_thread(copy_data, self.folder / "data", self.folder / "disk")
        await self.start()

    async def cut_power(self, seconds: float) -> None:
        """Lose all that was not synced; the power is back after so many seconds."""
        self.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(copy_data, self.folder / "disk", self.folder / "data")
        await self.start()

    def step_clock(self, seconds: int) -> None:
        """Let its clock be so many seconds ahead of the machine's, within a second."""
        self._clock.write_text(f"{seconds:+d}\n")

    # The other server

    async def copy_from(self, other: PostgresServer) -> None:
        """Throw away all data, and become a standby of the other one."""
        await asyncio.to_thread(self._copy, other)
        await self.start()

    def _copy(self, other: PostgresServer) -> None:
        data = self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        source = f"host=127.0.0.1 port={other.followers.port} user=postgres sslmode=disable"
        command: list[str | Path] = [BINARIES / "pg_basebackup", "-D", data, "-d", source, "-X", "stream", "-c", "fast"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{source} application_name={self.folder.name}'\n")
            settings.write("synchronous_standby_names = ''\n")  # nobody may follow it yet
        (data / "standby.signal").touch()
        _give_to(data, PostgresAccount.owning(other.folder / "data"))

    def unmount(self) -> None:
        if self.small_disk:
            subprocess.run(["umount", "-l", self.folder], check=False)


class Cluster:
    """A primary and its standby; they change places in a failover.  On a disk that forgets, there is no standby."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.disk = disk
        self.servers = tuple(PostgresServer(folder / name, disk) for name in ("one", "two"))
        self.primary, self.standby = self.servers
        self._ways = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start the primary alone; `replicate` adds the standby."""
        for server in self.servers:
            await self._ways.enter_async_context(server.followers)
        await self.primary.start()

    async def secure(self) -> None:
        """Let nothing be acknowledged from now on that a second server, or the disk, does not have."""
        if self.disk == "plain":
            await self.replicate()
        else:
            await self.primary.begin_to_forget()

    async def replicate(self) -> None:
        """Make the standby anew, and let commits wait for it."""
        await self.standby.copy_from(self.primary)
        async with asyncio.timeout(PATIENCE):
            while not await self.primary.execute(_FOLLOWED):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.1)
        await self._wait_for_standby(self.primary, "*")

    async def fail_over(self, *, lag: float) -> None:
        """Lose the primary for ever, and let its standby take over; a new standby follows.

        The standby has received nothing for `lag` seconds before: what was committed in them must not be missed.
        """
        way = self.primary.followers
        way.stall("up", "down")
        await asyncio.sleep(lag)
        self.primary.kill()
        way.cut()
        way.heal()
        self.primary, self.standby = self.standby, self.primary
        await self.primary.execute("SELECT pg_promote()")
        await self.standby.stop()
        await self.replicate()

    async def _wait_for_standby(self, server: PostgresServer, names: str) -> None:
        await server.execute(
            "SET synchronous_commit = 'off'",
            f"ALTER SYSTEM SET synchronous_standby_names = '{names}'",
            "SELECT pg_reload_conf()",
        )

    async def stop(self) -> None:
        """End both servers, whatever they do, and their disks."""
        await self._ways.aclose()
        for server in self.servers:
            server.kill()
            with contextlib.suppress(Exception):
                await server.stop()
            server.unmount()


def _mount(folder: Path) -> bool:
    """Give a folder a small disk of its own, where this account may do so."""
    command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0755", "tmpfs", folder]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _give_to(folder: Path, account: PostgresAccount) -> None:
    if not account.run_as:
        return
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, account.uid, account.run_as["group"], follow_symlinks=False)
