"""The demo: its parts, and the whole of it in a process of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coordinator.cli.demo import daemon_command
from coordinator.cli.demo_view import DemoProgress, render_progress, render_summary


def stats(**numbers: Any) -> dict[str, Any]:
    return {"services": [{"service": "dm_check", **numbers}, {"service": "other", "waiting": 5}]}


def drawn(picture: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(picture)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_progress_is_done_when_nothing_is_open_in_its_services() -> None:
    progress = DemoProgress(["dm_check"], 100)
    early = progress.done
    assert not early
    progress.take(stats(waiting=100, ready=0, claimed=0, dead=0, settled=0, quarantined=0), 10.0)
    progress.take(stats(waiting=20, ready=20, claimed=20, dead=0, settled=40, quarantined=0), 12.0)
    assert progress.seconds == 2.0
    shown = drawn(render_progress(progress, 3))
    assert "20" in shown
    assert "3 s" in shown  # 60 left at 20 a second
    progress.take(stats(waiting=0, ready=0, claimed=0, dead=0, settled=99, quarantined=1), 14.0)
    assert progress.done
    assert "done" in drawn(render_progress(progress, 3))
    assert "99 items settled in 4.0 s" in drawn(render_summary(progress, 120))


def test_each_daemon_is_someone_else() -> None:
    command = daemon_command(3, ["dm_check", "follower_check"], "ws://s:1", "http://api:2", Path("/d"))
    assert command[:4] == [sys.executable, "-m", "coordinator", "work"]
    assert "token=demo-3" in command
    assert "dm_check=coordinator.client.x_api:dm_check" in command
    assert 'dm_check={"source": "demo-3"}' in command
    assert not any(word.startswith("follower_check={") for word in command)


@pytest.mark.timeout(120)
@pytest.mark.long
def test_the_whole_ends_with_a_summary_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coordinator", "demo", "--clients", "4", "--exit"],
        capture_output=True,
        text=True,
        timeout=110,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp", "HOME": str(tmp_path), "COORDINATOR_PORT": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dm_check" in done.stdout
    assert "1,988" in done.stdout
    root = next(word for word in done.stdout.split() if "coordinator-demo-" in word)
    assert not Path(root).parent.exists()
