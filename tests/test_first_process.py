"""The first process of a container: it reaps orphans, passes on signals, and ends as the server does."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.app import CLOSE_WITHIN
from tests.embedded_tools import until

PROGRAM = Path(__file__).with_name("first_process_program.py")

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="orphans are looked for in /proc")


@pytest.fixture
def first() -> Iterator[subprocess.Popen[str]]:
    """The program, once its child waits."""
    command = [sys.executable, str(PROGRAM)]
    root = str(PROGRAM.parent.parent)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": root}) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "waiting\n"
        yield running
        running.kill()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_orphans_are_reaped_and_the_server_ends_as_it_would(first: subprocess.Popen[str]) -> None:
    until(lambda: len(children_of(first)) == 1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 7
    assert first.stdout is not None
    assert first.stdout.read() == f"{first.pid} has reaped\n"


def test_a_server_that_is_killed_is_told_by_the_exit_code(first: subprocess.Popen[str]) -> None:
    until(lambda: len(children_of(first)) == 1)
    [child] = children_of(first)
    subprocess.run(["/bin/kill", "-KILL", str(child)], check=True)
    assert first.wait(10) == 128 + signal.SIGKILL


def test_a_drain_and_its_end_fit_in_the_ten_seconds_that_docker_gives() -> None:
    containerfile = (Path(__file__).parents[1] / "deploy" / "container" / "Containerfile").read_text()
    [grace] = re.findall(r"COORDINATOR_DRAIN_GRACE=(\d+)", containerfile)
    assert float(grace) + CLOSE_WITHIN <= 8.0
