"""The README's way, as a new user goes it: the program as processes, its commands as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from coordinator import sample

pytestmark = pytest.mark.long

README = Path(__file__).parents[2] / "README.md"
PROGRAM = [sys.executable, "-m", "coordinator"]


def commands(heading: str) -> list[list[str]]:
    """The `coordinator …` lines of a section, split into words, without the program's name."""
    section = README.read_text(encoding="utf-8").split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("coordinator ")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A working folder that the account of Postgres can reach."""
    made = Path(tempfile.mkdtemp(prefix="coordinator-readme-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def run(words: list[str], folder: Path, expected: int = 0) -> str:
    done = subprocess.run([*PROGRAM, *words], cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == expected, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                assert answer.status == 200
                return
        except (URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError("the server does not become ready")


class Serving:
    """`coordinator serve` on its own port and folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def start(self) -> subprocess.Popen[bytes]:
        words = ["serve", "--data", "./data", "--port", str(self.port), "--ops-port", "0"]
        process = subprocess.Popen([*PROGRAM, *words], cwd=self.folder, stderr=subprocess.DEVNULL)
        wait_until_ready(self.port, process)
        return process

    def run(self, words: list[str], expected: int = 0) -> str:
        """One command against this server, whatever server the README names."""
        words = [word.replace("ws://127.0.0.1:8765", self.url) for word in words]
        if "--data" in words:
            words = [*words, "--server", self.url]
        return run(words, self.folder, expected)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


def a_free_port() -> int:

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_demo_settles_the_whole_sample_and_every_result_is_found(folder: Path) -> None:
    run(["demo", "--exit", "--data", "./data"], folder)
    serving = Serving(folder, a_free_port())
    process = serving.start()
    try:
        found = rows(serving.run(["result", "list", "dm_check", "--json", "--data", "./data"]))
        assert sorted(str(row["key"]) for row in found) == sorted(one.screen_name for one in sample.accounts())
        assert {row["value"]["dm"] for row in found} == {"DM", "NON_DM", "UNKNOWN"}  # type: ignore[index]  # JSON
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_commands_for_running_it_for_real(folder: Path) -> None:
    names = [*[one.screen_name for one in sample.accounts()][:50], "JohnBoozman"]
    (folder / "accounts.csv").write_text("screen_name\n" + "\n".join(dict.fromkeys(names)) + "\n")
    check = folder / "check.sh"
    check.write_text('#!/bin/sh\nexec sed -u -n \'s/.*"item": *\\([0-9]*\\).*/{"item": \\1, "dm": "DM"}/p\'\n')
    check.chmod(0o755)
    serving = Serving(folder, a_free_port())
    process = serving.start()
    daemon = None
    try:
        assert (folder / "data" / "admin-token").stat().st_mode & 0o777 == 0o600
        for words in commands("Run it for real"):
            if words[0] == "serve":
                continue
            if words[0] == "work":
                words = [word.replace("ws://127.0.0.1:8765", serving.url) for word in words]
                environment = {**os.environ, "XDG_DATA_HOME": str(folder / "volunteer")}
                daemon = subprocess.Popen([*PROGRAM, *words], cwd=folder, env=environment)
            else:
                serving.run(words)
        assert daemon is not None
        count = len(set(names))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            stats = json.loads(serving.run(["stats", "--json", "--data", "./data"]))
            settled = {row["service"]: row["settled"] for row in stats["services"]}
            if settled["dm_check"] == count:
                break
        assert settled["dm_check"] == count
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
    finally:
        if daemon is not None and daemon.poll() is None:
            daemon.kill()
            daemon.wait()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_killed_server_loses_nothing_and_a_second_one_is_refused(folder: Path) -> None:
    serving = Serving(folder, a_free_port())
    process = serving.start()
    (folder / "accounts.csv").write_text("key\n" + "".join(f"a{n}\n" for n in range(500)))
    serving.run(["item", "import", "accounts.csv", "--service", "dm_check", "--data", "./data"])
    second = subprocess.run(
        [*PROGRAM, "serve", "--data", "./data", "--port", "0", "--ops-port", "0"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert str(process.pid) in second.stderr
    process.kill()
    process.wait()
    process = serving.start()
    try:
        shown = rows(serving.run(["item", "waiting", "dm_check", "--json", "--data", "./data"]))
        assert len(shown) == 500
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert subprocess.run(["pgrep", "-f", str(folder)], check=False, capture_output=True).stdout == b""
