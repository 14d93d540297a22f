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


def section(heading: str) -> str:
    """The text of a section, up to the next heading of its rank."""
    return README.read_text(encoding="utf-8").split(f"## {heading}", 1)[1].split("\n## ", 1)[0]


def commands(heading: str) -> list[list[str]]:
    """The `coordinator …` lines of a section, split into words, without the program's name."""
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", section(heading), re.DOTALL) for line in block.splitlines()
    ]
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

    def __init__(self, folder: Path, port: int, data: str = "./data") -> None:
        self.folder, self.port, self.data = folder, port, data

    def start(self) -> subprocess.Popen[bytes]:
        words = ["serve", "--data", self.data, "--port", str(self.port), "--ops-port", "0"]
        process = subprocess.Popen([*PROGRAM, *words], cwd=self.folder, stderr=subprocess.DEVNULL)
        wait_until_ready(self.port, process)
        return process

    def run(self, words: list[str], expected: int = 0) -> str:
        """One command against this server, whatever server the README names; by `--data` it is found."""
        words = [word.replace("ws://127.0.0.1:8765", self.url) for word in words]
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


def code(heading: str, language: str) -> list[str]:
    """The blocks of a section in that language."""
    return re.findall(rf"```{language}\n(.*?)```", section(heading), re.DOTALL)


def shell_lines(heading: str) -> list[str]:
    """The lines of a section's shell blocks."""
    return [line for block in code(heading, "sh") for line in block.splitlines()]


class Daemon:
    """`coordinator work …` as the README has it, against a server on its own port."""

    def __init__(self, serving: Serving, words: list[str]) -> None:
        words = [word.replace("ws://127.0.0.1:8765", serving.url) for word in words]
        environment = {**os.environ, "XDG_DATA_HOME": str(serving.folder / "volunteer")}
        self._process = subprocess.Popen([*PROGRAM, *words], cwd=serving.folder, env=environment)

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def serving(folder: Path) -> Iterator[Serving]:
    """The server of a section that begins with `coordinator serve --data ./data`."""
    one = Serving(folder, a_free_port())
    process = one.start()
    yield one
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def follow(serving: Serving, heading: str) -> Daemon:
    """Do what a section's shell blocks say up to its `coordinator work`; returns that, at work."""
    for line in shell_lines(heading):
        words = shlex.split(line)
        if words[:2] == ["coordinator", "work"]:
            return Daemon(serving, words[1:])
        if words[:2] == ["coordinator", "serve"]:
            continue
        if words[0] == "coordinator":
            serving.run(words[1:])
        elif words[:2] == ["pip", "install"]:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
            folder = os.environ["PYTHONPATH"]
            subprocess.run(
                [*pip, "--disable-pip-version-check", "--target", folder, *words[2:]], cwd=serving.folder, check=True
            )
        else:
            subprocess.run(line, shell=True, cwd=serving.folder, check=True)
    raise AssertionError(f"{heading} has no coordinator work")


def settled(serving: Serving, service: str, count: int) -> dict[str, object]:
    """Wait for so many results of a service; returns them by key."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = rows(serving.run(["result", "list", service, "--json", "--data", "./data"]))
        if len(found) >= count:
            return {str(row["key"]): row["value"] for row in found}
    raise AssertionError(f"{service} does not get {count} results")


def test_an_own_check_in_five_minutes(serving: Serving) -> None:
    heading = "Your own check, in five minutes"
    (program,) = code(heading, "python")
    (serving.folder / "check.sh").write_text(program)
    taken, written = code(heading, "json")
    done = subprocess.run(
        [sys.executable, "check.sh"], cwd=serving.folder, input=taken, capture_output=True, text=True, check=True
    )
    assert done.stdout == written

    daemon = follow(serving, heading)
    try:
        assert settled(serving, "letters", 2) == {"ada": {"letters": 3}, "grace": {"letters": 5}}
        daemon.end()
    finally:
        daemon.kill()
    listed, exported = commands(heading)[-2:]
    assert "letters: 5" in serving.run(listed)
    header, *lines = serving.run(exported[: exported.index(">")]).splitlines()
    assert header.endswith(",value.letters")
    assert sorted(line.rpartition(",")[2] for line in lines) == ["3", "5"]

    # "named": what is added without a name does not come to it.
    serving.run(["item", "add", "bob", "--data", "./data"])
    (shown,) = rows(serving.run(["service", "show", "letters", "--json", "--data", "./data"]))
    assert isinstance(shown["counts"], dict)
    assert shown["counts"]["items"] == 2


def test_the_commands_for_running_it_for_real(serving: Serving) -> None:
    names = [*[one.screen_name for one in sample.accounts()][:50], "JohnBoozman"]
    (serving.folder / "accounts.csv").write_text("screen_name\n" + "\n".join(dict.fromkeys(names)) + "\n")
    (function,) = code("Run it for real", "python")
    (serving.folder / "mycheck.py").write_text(function)
    assert (serving.folder / "data" / "admin-token").stat().st_mode & 0o777 == 0o600
    daemon = follow(serving, "Run it for real")
    try:
        values = settled(serving, "dm_check", len(set(names)))
        assert values["JohnBoozman"] == {"dm": "DM"}
        assert {"dm": "NON_DM"} in values.values()
        daemon.end()
    finally:
        daemon.kill()


def test_a_kind_of_check_as_it_is_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed while the server runs, as the README says."""
    heading = "Add a kind of check"
    packages = folder / "packages"
    packages.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(packages))
    module, checker = code(heading, "python")
    (project,) = code(heading, "toml")
    (folder / "link-alive").mkdir()
    (folder / "link-alive" / "link_alive.py").write_text(module)
    (folder / "link-alive" / "pyproject.toml").write_text(project)
    (folder / "links.py").write_text(checker)

    serving = Serving(folder, a_free_port())
    process = serving.start()
    daemon = None
    try:
        daemon = follow(serving, heading)
        here = f"http://127.0.0.1:{serving.port}/"
        serving.run(["item", "add", here, "--service", "links", "--data", "./data"])
        values = settled(serving, "links", 3)
        assert values[here] == {"alive": True, "status": 200}
        assert values["http://127.0.0.1:9/"] == {"alive": False}
        daemon.end()
    finally:
        if daemon is not None:
            daemon.kill()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_backup_and_its_restore(serving: Serving) -> None:
    serving.run(["item", "add", "ada", "--service", "dm_check", "--data", "./data"])
    backup, restore = commands("Back up, restore, upgrade")
    serving.run(backup)
    serving.run(restore)
    restored = Serving(serving.folder, a_free_port(), "./data-new")
    process = restored.start()
    try:
        assert len(rows(restored.run(["item", "waiting", "dm_check", "--json", "--data", "./data-new"]))) == 1
    finally:
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
