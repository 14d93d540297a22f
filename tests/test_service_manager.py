"""The protocol of a service manager, heard on a real socket: ready, alive, stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import service_manager
from coordinator.config import Supervision, supervision
from coordinator.embedded import EmbeddedPostgres
from tests.databases import Databases


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Listens where NOTIFY_SOCKET points."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def heard(manager: socket.socket) -> str:
    return manager.recv(100).decode()


def test_a_node_tells_that_it_serves_lives_and_stops(
    manager: socket.socket, postgres: EmbeddedPostgres, databases: Databases, tmp_path: Path
) -> None:
    dsn = asyncio.run(databases.shared())
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    words = ["serve", "--database", dsn, "--data", str(tmp_path), "--port", "0", "--ops-port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "coordinator", *words], env=environment, stderr=subprocess.DEVNULL
    ) as node:
        try:
            assert heard(manager) == "READY=1"
            assert [heard(manager), heard(manager)] == ["WATCHDOG=1", "WATCHDOG=1"]
            node.send_signal(signal.SIGTERM)
            while (last := heard(manager)) == "WATCHDOG=1":
                pass
            assert last == "STOPPING=1"
            assert node.wait(30) == 0
        finally:
            node.kill()


async def test_a_loop_that_hangs_tells_nothing(manager: socket.socket, tmp_path: Path) -> None:
    watched = service_manager.SystemdNotifier(Supervision(str(tmp_path / "notify"), 0.06))
    pinging = asyncio.create_task(watched.run())
    await asyncio.sleep(0)
    assert heard(manager) == "WATCHDOG=1"
    manager.settimeout(0.2)
    with pytest.raises(TimeoutError):
        heard(manager)  # which blocks the loop
    pinging.cancel()


def test_the_watchdog_is_for_the_process_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    assert supervision() == Supervision()
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert supervision() == Supervision(None, 60.0)
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert supervision() == Supervision()
    service_manager.SystemdNotifier(Supervision("/nowhere/at/all")).tell("READY=1")
