"""`coordinator serve --processes N`: one port, several nodes, one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .test_readme import PROGRAM, Serving, a_free_port, folder, wait_until_ready

pytestmark = pytest.mark.long

__all__ = ["folder"]


def live(serving: Serving) -> dict[str, int]:
    """The nodes that serve, each with its start."""
    rows = serving.run(["node", "list", "--json", "--data", "./data"]).splitlines()
    nodes = [json.loads(row) for row in rows]
    return {node["node"]: node["boot"] for node in nodes if node["state"] == "live"}


def until(serving: Serving, good: dict[str, int] | None, count: int) -> dict[str, int]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = live(serving)
        if len(found) == count and found != good:
            return found
    raise AssertionError(f"not {count} nodes in time: {live(serving)}")


def test_two_processes_serve_and_a_dead_one_is_started_again(folder: Path) -> None:
    serving = Serving(folder, a_free_port())
    words = ["serve", "--data", "./data", "--port", str(serving.port), "--ops-port", "0", "--processes", "2"]
    address = folder / "data" / "address"
    process = subprocess.Popen([*PROGRAM, *words], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(serving.port, process)
        before = until(serving, None, 2)
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
        )
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        after = until(serving, before, 2)
        assert set(after) == set(before)
        assert sum(after[name] > before[name] for name in before) == 1
        assert address.read_text() == f"ws://127.0.0.1:{serving.port}\n"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not address.exists()
