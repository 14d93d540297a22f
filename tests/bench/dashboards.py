"""Cost of watching for a node: `python -m tests.bench.dashboards [--dashboards N] [--seconds S]`.

Starts `coordinator serve` on a fresh data folder, lets one client settle some items each second so that every topic
changes, and compares the CPU time of the node's process (not of its Postgres) with nobody watching and with N
dashboards (default 1,000) that subscribe to the overview, and to three topics, at one second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import cast

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


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _share(pid: int, seconds: float) -> float:
    """The share of a core that a process takes."""
    before, begun = _cpu(pid), monotonic()
    await asyncio.sleep(seconds)
    return (_cpu(pid) - before) / (monotonic() - begun)


async def _measure(port: int, pid: int, token: str, count: int, seconds: float) -> list[tuple[str, float, float]]:
    loop = asyncio.get_running_loop()
    worker = asyncio.create_task(_work(port, token))
    try:
        await asyncio.sleep(5.0)

        found = []
        dashboards: list[Dashboard] = []
        for name, topics in (
            ("nobody", []),
            (f"{count:,} with the overview", ["overview"]),
            (f"{count:,} with overview, services, events", ["services", "events"]),
        ):
            if topics and not dashboards:
                for _ in range(count):
                    _, dashboard = await loop.create_connection(Dashboard, "127.0.0.1", port)
                    dashboards.append(dashboard)
                    dashboard.say(type="hello", protocol=1)
            for dashboard in dashboards:
                dashboard.say(type="subscribe", topics=topics, interval=1)

            await asyncio.sleep(3.0)
            Dashboard.taken = 0
            share = await _share(pid, seconds)
            found.append((name, share, Dashboard.taken / seconds))

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

    table = Table("who watches", "of a core", "more than nobody", "KiB/s to all")
    for name, share, sent in found:
        table.add_row(name, f"{share:.1%}", f"{share - found[0][1]:+.1%}", f"{sent / 1024:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dashboards", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    made = Path(tempfile.mkdtemp(prefix="coordinator-dashboards-", dir="/tmp"))
    made.chmod(0o755)
    asyncio.run(_main(made, chosen.dashboards, chosen.seconds))
