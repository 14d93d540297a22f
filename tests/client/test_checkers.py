"""Checkers from modules and from programs."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.backoff import Backoff
from coordinator.client.checker_program import CheckerProgram, ProgramFailed
from coordinator.client.checkers import CheckFailed, UpstreamLimited, UpstreamOut, load_checker
from coordinator.client.service_work import ServiceWork
from coordinator.errors import ConfigError

MODULE = """
async def check(item, profile):
    return {"dm": profile["answer"]}

def made(*, answer="X"):
    async def check(item, profile):
        return {"dm": answer}
    return check

class Made:
    def __init__(self, answer="Y"):
        self.answer = answer
    async def __call__(self, item, profile):
        return {"dm": self.answer}

def plain(): return 1
def plain_check(item, profile=None): return {"dm": "DM"}
def plain_pair(a, b): return {"dm": "DM"}
number = 3
"""

ECHO = """
import json, sys
held = None
for line in sys.stdin:
    got = json.loads(line)
    if got["key"] == "hold":
        held = got
        continue
    if got["key"] == "die once":
        import pathlib
        mark = pathlib.Path(got["profile"]["mark"])
        if not mark.exists():
            mark.write_text("")
            sys.exit(3)
    if got["key"] == "skip":
        answer = {"item": got["item"], "$skip": "cannot"}
    elif got["key"] == "limited":
        answer = {"item": got["item"], "$upstream_limited": 7}
    elif got["key"] == "out":
        answer = {"item": got["item"], "$upstream_out": "nobody there"}
    else:
        answer = {"item": got["item"], "dm": got["service"], "of": got["key"]}
    print("noise")
    print(json.dumps({"item": 999, "dm": "of an item that nobody asked for"}))
    print(json.dumps(answer), flush=True)
    if held:
        print(json.dumps({"item": held["item"], "dm": "late"}), flush=True)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"checker_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    return name


async def test_functions_of_a_module_here(module: str) -> None:
    assert await load_checker(f"{module}:check")({}, {"answer": "DM"}) == {"dm": "DM"}
    assert await load_checker(f"{module}:made", {"answer": "Z"})({}, {}) == {"dm": "Z"}
    assert await load_checker(f"{module}:Made")({}, {}) == {"dm": "Y"}


def test_what_is_no_checker(module: str) -> None:
    for name in (module, "no_such_module:check", f"{module}:none", f"{module}:plain", f"{module}:number"):
        with pytest.raises(ConfigError):
            load_checker(name)
    for name in (f"{module}:check", f"{module}:made"):
        with pytest.raises(ConfigError):
            load_checker(name, {"unknown": "1"})


@pytest.mark.parametrize("name", ["plain_check", "plain_pair"])
def test_a_checker_that_is_not_async_is_told_so(module: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"is a plain function; it must be async: async def {name}\(item, profile\)"):
        load_checker(f"{module}:{name}")


@pytest.mark.parametrize("returned", [None, "DM", ["DM"]])
async def test_a_checker_that_returns_no_dictionary_is_told_what_was_expected(returned: Any) -> None:
    async def check(item: dict[str, Any], profile: dict[str, Any]) -> Any:
        return returned

    with pytest.raises(TypeError) as failure:
        await ServiceWork("s", check).result_of({"item": 7, "key": "ada"})
    assert str(failure.value).startswith(f"the checker returned {returned!r}; expected a dictionary")


@pytest.fixture
def echo(tmp_path: Path) -> str:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    return shlex.join([sys.executable, str(path)])


def item(n: int, key: str) -> dict[str, Any]:
    return {"item": n, "key": key}


async def test_program_answers_in_any_order(echo: str) -> None:
    async with CheckerProgram(echo) as program:
        check = program.checker("dm_check")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_await(check(item(1, "hold"), {})))
            await asyncio.sleep(0)
            second = group.create_task(_await(check(item(2, "b"), {})))
        assert first.result() == {"dm": "late"}
        assert second.result() == {"dm": "dm_check", "of": "b"}


async def test_program_skips_and_is_limited(echo: str) -> None:
    async with CheckerProgram(echo) as program:
        check = program.checker("dm_check")
        with pytest.raises(CheckFailed, match="cannot"):
            await check(item(1, "skip"), {})
        with pytest.raises(UpstreamLimited) as limited:
            await check(item(1, "limited"), {})
        assert limited.value.retry_after == 7
        with pytest.raises(UpstreamOut, match="nobody there"):
            await check(item(1, "out"), {})


async def test_program_that_dies_is_started_again(echo: str, tmp_path: Path) -> None:
    async with CheckerProgram(echo, Backoff(0.01, 0.01)) as program:
        check = program.checker("s")
        assert await check(item(1, "die once"), {"mark": str(tmp_path / "mark")}) == {
            "dm": "s",
            "of": "die once",
        }
        assert await check(item(2, "b"), {}) == {"dm": "s", "of": "b"}


def test_program_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no program '/no/such/program'"):
        CheckerProgram("/no/such/program")
    with pytest.raises(ConfigError):
        CheckerProgram("'")


def test_a_file_that_is_no_program_is_told_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("check.sh").write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match=r"'\./check\.sh' is not executable: chmod \+x \./check\.sh"):
        CheckerProgram("./check.sh")
    with pytest.raises(ConfigError, match=r"on the PATH; for the file in this folder write \./check\.sh"):
        CheckerProgram("check.sh")
    with pytest.raises(ConfigError, match="is a folder"):
        CheckerProgram(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import json\n", "its first line does not name what runs it, such as #!/usr/bin/env python3"),
        ("#!/no/such/python\n", "what its first line, #!…, names is not there"),
    ],
)
async def test_a_script_that_nothing_runs_is_told_so(tmp_path: Path, text: str, words: str) -> None:
    script = tmp_path / "check.py"
    script.write_text(text)
    script.chmod(0o755)
    async with CheckerProgram(str(script)) as program:
        with pytest.raises(ProgramFailed) as failed:
            await program.checker("s")(item(1, "a"), {})
        assert words in str(failed.value)


async def test_program_that_cannot_be_started(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nothing that runs")
    broken.chmod(0o755)
    async with CheckerProgram(str(broken)) as program:
        with pytest.raises(ProgramFailed, match="cannot be started"):
            await program.checker("s")(item(1, "a"), {})


async def _await(request: Any) -> Any:
    return await request
