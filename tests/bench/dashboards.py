"""Cost of watching for a node: `python -m tests.bench.dashboards [--dashboards N] [--seconds S]`.

Starts `coordinator serve` on a fresh data folder, lets one client settle some items each second so that every topic
changes, and compares the CPU time of the node's process, and of its Postgres, with nobody watching and with N
dashboards (default 1,000) that subscribe to the overview, and to three topics, at one second, and that read tables
besides as the page of the overview does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple, cast

from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from tests.e2e.test_readme import a_free_port
from tests.harness import Admin, Volunteer, secret_of

_UPGRADE = (
    b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Dashboard(asyncio.Protocol):
    """A peer that reads and throws away, as cheaply as can be."""

    taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(_UPGRADE)

    def data_received(self, data: bytes) -> None:
        Dashboard.taken += len(data)

    def say(self, **message: object) -> None:
        payload = json.dumps(message).encode()
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        self.transport.write(b"\x81" + length + bytes(4) + payload)


async def _work(port: int, token: str) -> None:
    """Settle 20 items five times a second, until cancelled."""
    async with AsyncExitStack() as stack:
        admin = await Admin.open(f"ws://127.0.0.1:{port}/v1/admin", stack)
        await admin.ok("hello", protocol=1, token=token)
        await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 20})

        peer = await Volunteer.open(f"ws://127.0.0.1:{port}/v1/client", stack)
        await peer.ok("hello", protocol=1, client_id="worker", secret=secret_of("worker"))
        choice = {"service": "dm_check", "profile": {"source": "worker"}}
        await peer.ok("register", screen_name="worker", services=[choice])

        rounds = 0
        while True:
            if rounds % 50 == 0:
                await admin.add(1000, prefix=f"k{rounds}_", services=["dm_check"])
            rounds += 1
            await peer.submit(await peer.bucket())
            await asyncio.sleep(0.2)


def _read_page(dashboard: Dashboard, turn: int) -> None:
    """Ask for what the page of the overview reads in that second, besides its topics."""
    if turn % 5 == 0:
        dashboard.say(type="get", topic="events", filter={"severity": "warning"}, limit=50)
    if turn % 10 == 0:
        dashboard.say(type="get", topic="leaderboard", filter={"span": "day"}, limit=8)


async def _read_pages(dashboards: list[Dashboard]) -> None:
    """Ask for tables as the page of the overview does, until cancelled."""
    for turn in itertools.count():
        for place, dashboard in enumerate(dashboards):
            _read_page(dashboard, turn + place)
        await asyncio.sleep(1.0)


class Cpu(NamedTuple):
    """Seconds of CPU time of a node's process, and of the processes that it started: its Postgres."""

    node: float
    postgres: float


def _cpu(pid: int) -> Cpu:
    """The CPU time that a node has had until now, that of processes which have ended included."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            process = int(stat.parent.name)
            parents[process] = int(fields[1])
            ticks = sum(map(int, fields[11:13] if process == pid else fields[11:15]))
            spent[process] = ticks / os.sysconf("SC_CLK_TCK")

    started = {pid}
    while more := {process for process, parent in parents.items() if parent in started} - started:
        started |= more
    return Cpu(spent[pid], sum(spent[process] for process in started - {pid}))


async def _share(pid: int, seconds: float) -> Cpu:
    """The shares of a core that a node and its Postgres take."""
    before, begun = _cpu(pid), monotonic()
    await asyncio.sleep(seconds)
    after, passed = _cpu(pid), monotonic() - begun
    return Cpu((after.node - before.node) / passed, (after.postgres - before.postgres) / passed)


async def _measure(port: int, pid: int, token: str, count: int, seconds: float) -> list[tuple[str, Cpu, float]]:
    loop = asyncio.get_running_loop()
    worker = asyncio.create_task(_work(port, token))
    try:
        await asyncio.sleep(5.0)

        found: list[tuple[str, Cpu, float]] = []
        dashboards: list[Dashboard] = []
        reading: asyncio.Task[None] | None = None
        for name, topics in (
            ("nobody", []),
            (f"{count:,} with the overview", ["overview"]),
            (f"{count:,} with overview, services, events", ["services", "events"]),
            (f"{count:,} that read tables too", ["overview"]),
        ):
            if topics and not dashboards:
                for _ in range(count):
                    _, dashboard = await loop.create_connection(Dashboard, "127.0.0.1", port)
                    dashboards.append(dashboard)
                    dashboard.say(type="hello", protocol=1)
            for dashboard in dashboards:
                dashboard.say(type="subscribe", topics=topics, interval=1)
            if len(found) == 3:
                reading = asyncio.create_task(_read_pages(dashboards))

            await asyncio.sleep(3.0)
            Dashboard.taken = 0
            share = await _share(pid, seconds)
            found.append((name, share, Dashboard.taken / seconds))

        if reading is not None:
            reading.cancel()
        for dashboard in dashboards:
            dashboard.transport.close()
        return found
    finally:
        worker.cancel()
        await asyncio.wait([worker])


async def _ready(port: int) -> None:
    for _ in range(300):
        try:
            async with connect(f"ws://127.0.0.1:{port}/v1/stats"):
                return
        except OSError:
            await asyncio.sleep(0.2)
    raise TimeoutError("the node does not answer")


async def _main(folder: Path, count: int, seconds: float) -> None:
    port = a_free_port()
    words = ["serve", "--data", str(folder), "--port", str(port), "--ops-port", "0"]
    words += ["--connections-per-address", "9999"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coordinator", *words, stderr=asyncio.subprocess.DEVNULL
    )

    try:
        await _ready(port)
        token = (folder / "admin-token").read_text().strip()
        found = await _measure(port, process.pid, token, count, seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    idle = found[0][1]
    table = Table("who watches", "node, of a core", "more than nobody", "Postgres", "more than nobody", "KiB/s to all")
    for name, share, sent in found:
        more = (f"{share.node - idle.node:+.1%}", f"{share.postgres - idle.postgres:+.1%}")
        table.add_row(name, f"{share.node:.1%}", more[0], f"{share.postgres:.1%}", more[1], f"{sent / 1024:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dashboards", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    made = Path(tempfile.mkdtemp(prefix="coordinator-dashboards-", dir="/tmp"))
    made.chmod(0o755)
    asyncio.run(_main(made, chosen.dashboards, chosen.seconds))
