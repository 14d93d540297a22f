"""The demo: its parts, and the whole of it in a process of its own."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coordinator.cli.demo_view import DemoProgress, render_progress, render_summary
from coordinator.cli.demo_volunteers import Workplace, daemon_command
from tests.cli.conftest import Run

NAMELESS = 54321
HAS_POSTGRES = (
    f"from coordinator.embedded.account import PostgresAccount as A; A('nameless', {NAMELESS}).passwd_entry()"
)


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
    assert drawn(render_progress(progress, 3)).splitlines()[1].endswith(" \N{EN DASH}")  # not known yet
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
    place = Workplace(["dm_check", "follower_check"], "ws://s:1", "http://api:2", Path("/d"))
    command = daemon_command(3, place)
    assert command[:4] == [sys.executable, "-m", "coordinator", "work"]
    assert "token=demo-3" in command
    assert "dm_check=coordinator.client.x_api:dm_check" in command
    assert 'dm_check={"source": "demo-3"}' in command
    assert not any(word.startswith("follower_check={") for word in command)


def account() -> dict[str, Any]:
    """The account without a name, where the tests may become it and it can have a Postgres; else their own."""
    nameless: dict[str, Any] = {"user": NAMELESS, "group": NAMELESS, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", HAS_POSTGRES], check=True, capture_output=True, cwd="/", **nameless)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"cwd": "/", **nameless}


def demo(*words: str, **environment: str) -> str:
    """Run the command to its end without a home folder, and as an account without a name if the tests run as root.

    Returns its output, and checks that nothing is left of its folder.
    """
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "coordinator", "demo", "--exit", *words],
        capture_output=True,
        text=True,
        timeout=170,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp", **environment},
        **account(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    root = next(word for word in done.stdout.split() if "coordinator-demo-" in word)
    assert not Path(root).parent.exists()
    return done.stdout


@pytest.mark.timeout(180)
@pytest.mark.long
def test_the_whole_ends_with_a_summary_and_has_the_settings_of_serve() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    ignored = {"COORDINATOR_DATABASE": "postgresql://nobody@127.0.0.1:9/none", "COORDINATOR_DATA": "/proc/none"}
    said = demo("--clients", "4", "--registration", "token", COORDINATOR_PORT=str(port), **ignored)
    assert f"Dashboard: http://127.0.0.1:{port}/" in said
    assert "dm_check" in said
    assert "1,988" in said


@pytest.mark.timeout(180)
@pytest.mark.long
def test_at_its_usual_pace_daemons_come_and_go_and_the_one_that_cheats_is_caught() -> None:
    said = " ".join(demo("--pace", "1").split())
    for sentence in (
        "demo-1 leaves",
        "demo-1 is back",
        "demo-8 crashes",
        "demo-8 is back",
        "demo-hasty joins",
        "demo-hasty is caught",
        "are taken back",
    ):
        assert sentence in said, said
    assert "dm_check 1,988 0" in said


def test_its_help_has_the_flags_of_serve_that_it_takes(run: Run) -> None:
    said = run("demo", "--help").stdout
    assert all(flag in said for flag in ("--port", "--pace", "--clients", "--exit", "--data", "--host", "--viewers"))
    assert not any(flag in said for flag in ("--database", "--processes", "--tls-cert"))
    assert "Default: a free one." in " ".join(said.replace("│", " ").split())
