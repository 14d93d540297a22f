"""Checker programs that hang, keep their output, or write what is no result."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import program_watch
from coordinator.client.backoff import Backoff
from coordinator.client.checker_program import CheckerProgram, ProgramFailed
from coordinator.client.checkers import NoResultInTime
from coordinator.client.limited_log import LINES, LimitedLog
from coordinator.client.program_watch import QUIET_AFTER, ProgramWatch
from tests.bounded import within

Write = Callable[[str], str]

ANSWERS = """
import json, sys, time
for line in sys.stdin:
    got = json.loads(line)
    while got["key"] == "hang":
        time.sleep(60)
    print(json.dumps({"item": got["item"], "dm": "DM"}), flush=True)
"""

KEEPS = """
import json, sys
sys.stdout = open(1, "w", buffering=1 << 16)
for line in sys.stdin:
    print(json.dumps({"item": json.loads(line)["item"], "dm": "DM"}))
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a program, and returns its command."""

    def make(text: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(text)
        return shlex.join([sys.executable, str(path)])

    return make


async def check(program: CheckerProgram, number: int, key: str = "ada") -> Any:
    return await program.checker("s")({"item": number, "key": key}, {})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_an_item_over_which_it_hangs_fails_alone(write: Write) -> None:
    async with CheckerProgram(write(ANSWERS), Backoff(0.01, 0.01), item_timeout=3.0) as program:
        assert await check(program, 1) == {"dm": "DM"}
        hung = asyncio.ensure_future(check(program, 2, "hang"))
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(check(program, n)) for n in (3, 4, 5)]
        with pytest.raises(NoResultInTime, match="no result within 3 s; it is started again"):
            await hung
        assert await asyncio.gather(*others) == [{"dm": "DM"}] * 3


async def test_a_program_that_hangs_over_each_item_is_given_up(write: Write) -> None:
    async with CheckerProgram(write("import time; time.sleep(600)"), item_timeout=0.2) as program:
        for number in (1, 2):
            with pytest.raises(NoResultInTime):
                await check(program, number)
        with pytest.raises(NoResultInTime):
            await check(program, 3)
        with pytest.raises(ProgramFailed, match=r"3 items in a row, 0\.2 s each: does it flush each line\?"):
            await check(program, 4)


async def test_a_program_that_writes_no_results_is_told_so_and_not_to_flush(write: Write) -> None:
    text = ANSWERS.replace(
        'print(json.dumps({"item": got["item"], "dm": "DM"}), flush=True)', 'print("DM", flush=True)'
    )
    async with CheckerProgram(write(text), item_timeout=0.5) as program:
        for number in (1, 2, 3):
            with pytest.raises(NoResultInTime):
                await check(program, number)
        with pytest.raises(
            ProgramFailed, match=r"it wrote lines that are no results; expected a line such as"
        ) as failed:
            await check(program, 4)
        assert "flush" not in str(failed.value)


async def test_programs_that_it_started_end_with_it(write: Write, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = f"held = open({str(pipe)!r}, 'w'); import time; time.sleep(600)"
    text = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"

    async with CheckerProgram(write(text), item_timeout=4.0) as program:
        held_open = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
        with pytest.raises(NoResultInTime):
            await check(program, 1)
        await within(held_open, 10)


async def test_silence_is_told(write: Write, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_watch, "QUIET_AFTER", 0.3)
    async with CheckerProgram(write(KEEPS), item_timeout=1.0) as program:
        with pytest.raises(NoResultInTime):
            await check(program, 1)
    quiet = [line for line in caplog.messages if "flush each line" in line]
    assert quiet == ["the program has had 1 item for 30 s and has written no result: does it flush each line?"]


async def test_what_it_says_is_passed_on(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "coordinator.client")
    text = ANSWERS.replace(
        "import json, sys, time\n",
        "import json, sys, time\n"
        "print('hello', file=sys.stderr, flush=True)\n"
        "print('no json', flush=True)\n"
        "print('[1]', flush=True)\n"
        'print(\'{"dm": "DM"}\', flush=True)\n'
        'print(\'{"item": "7"}\', flush=True)\n'
        "print(json.dumps({'item': 77, 'dm': 'DM'}), flush=True)\n"
        "for n in range(1000): print('again', n, file=sys.stderr)\n"
        "print('last words', end='', file=sys.stderr, flush=True)\n",
    )
    async with CheckerProgram(write(text)) as program:
        assert await check(program, 1) == {"dm": "DM"}

    lines = caplog.messages
    assert lines[0].startswith("the program ")
    assert "the program says: hello" in lines
    expected = '; expected a line such as {"item": 7, "dm": "DM"}, with the fields that the service wants'
    no_results = [line.partition("no result: ")[2] for line in lines if "a line that is no result: " in line]
    assert no_results == [
        f"{what}{expected}"
        for what in (
            "no JSON object: 'no json'",
            "no JSON object: '[1]'",
            """no field "item": '{"dm": "DM"}'""",
            """the field "item" is no integer: '{"item": "7"}'""",
            """item 77 is none that it has now: '{"item": 77, "dm": "DM"}'""",
        )
    ]
    assert sum(line.startswith("the program says: again") for line in lines) == LINES - 1
    assert f"the program says: {1002 - LINES} more lines were left out" in lines


def test_the_log_of_others_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    said = LimitedLog("it says", clock)
    for n in range(10_000):
        said.line("x" * 5000)
        clock.now = n / 1000
    assert len(caplog.messages) == LINES
    assert max(map(len, caplog.messages)) < 600
    clock.now = 11
    said.line("more")
    assert caplog.messages[-2:] == [f"it says: {10_000 - LINES} more lines were left out", "it says: more"]


def test_the_oldest_item_is_the_one_it_hangs_over() -> None:
    clock = Clock()
    watch = ProgramWatch(100.0, clock)
    assert watch.next_look() is None
    watch.started()
    for item in (1, 2, 3):
        watch.asked(item)
    assert watch.next_look() == QUIET_AFTER
    clock.now = 90
    watch.ended(1)
    watch.heard()
    clock.now = 180
    assert watch.overdue() is None  # 90 s over the second, which came with the first
    watch.ended(3)
    assert watch.next_look() == 10
    clock.now = 190
    assert watch.overdue() == 2
    watch.started()
    assert watch.overdue() is None


def test_silence_is_that_of_a_program_that_never_spoke() -> None:
    clock = Clock()
    watch = ProgramWatch(1000.0, clock)
    watch.started()
    clock.now = 500
    watch.asked(1)
    assert watch.quiet_items() == 0  # it had nothing to do
    clock.now += QUIET_AFTER
    assert watch.quiet_items() == 1
    assert watch.quiet_items() == 0  # told once

    watch.started()
    watch.heard()
    watch.ended(1)
    watch.asked(2)
    clock.now += 10 * QUIET_AFTER
    assert watch.quiet_items() == 0  # it is just slow
