"""Checker programs that die: over one item, over each, or without any."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.backoff import Backoff
from coordinator.client.checker_program import CheckerProgram, ProgramFailed
from coordinator.client.checkers import ProgramDied
from coordinator.client.crash_suspects import CrashSuspects
from tests.bounded import within
from tests.harness import Admin, Server

from .trouble import at_work, client_row, logged, settled

DIES = """
import json, sys
for line in sys.stdin:
    got = json.loads(line)
    if got["key"].startswith("bad"):
        sys.exit(3)
    print(json.dumps({"item": got["item"], "dm": "DM"}), flush=True)
"""

GIVES_FIVE = """
import json, pathlib, sys
given = pathlib.Path(__file__).with_suffix(".given")
for line in sys.stdin:
    count = len(given.read_text()) if given.exists() else 0
    if count == 5:
        sys.exit(3)
    given.write_text("x" * (count + 1))
    print(json.dumps({"item": json.loads(line)["item"], "dm": "DM"}), flush=True)
"""

CLOSES_ITS_OUTPUT = """
import os, pathlib, sys, time
pathlib.Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
os.close(1)
print("has closed its output", file=sys.stderr, flush=True)
time.sleep(60)
"""

ONE_EACH = DIES + "    sys.exit(0)"


def program_of(folder: Path, text: str) -> CheckerProgram:
    path = folder / "program.py"
    path.write_text(text)
    return CheckerProgram(shlex.join([sys.executable, str(path)]), Backoff(0.01, 0.01))


async def outcomes(program: CheckerProgram, keys: list[str]) -> list[Any]:
    """The outcomes of items that are all in check at once."""
    check = program.checker("s")
    checks = [check({"item": number, "key": key}, {}) for number, key in enumerate(keys)]
    return await asyncio.gather(*checks, return_exceptions=True)


@pytest.mark.parametrize("place", [0, 2, 4])
async def test_the_item_over_which_it_dies_fails_alone(tmp_path: Path, place: int) -> None:
    keys = ["ada", "bob", "cyd", "dan", "eve"]
    keys[place] = "bad1"
    async with program_of(tmp_path, DIES) as program:
        found = await outcomes(program, keys)
        died = found.pop(place)
        assert isinstance(died, ProgramDied)
        assert str(died) == "the program dies over this item (exit status 3)"
        assert found == [{"dm": "DM"}] * 4


async def test_the_same_item_again_and_again_ends_nothing(tmp_path: Path) -> None:
    async with program_of(tmp_path, DIES) as program:
        for _ in range(4):
            (died,) = await outcomes(program, ["bad1"])
            assert isinstance(died, ProgramDied)
        assert await outcomes(program, ["ada"]) == [{"dm": "DM"}]


async def test_items_with_results_between_them_end_nothing(tmp_path: Path) -> None:
    async with program_of(tmp_path, DIES) as program:
        found = await outcomes(program, ["bad1", "ada", "bad2", "bob", "bad3", "cyd", "bad4", "dan"])
    assert [isinstance(one, ProgramDied) for one in found] == [True, False] * 4


async def test_a_program_that_dies_over_three_items_is_given_up(tmp_path: Path) -> None:
    async with program_of(tmp_path, DIES) as program:
        found = await outcomes(program, ["bad1", "bad2", "bad3", "ada"])
    assert [type(one) for one in found] == [ProgramDied] * 3 + [ProgramFailed]
    assert "died over 3 different items, each alone, without a result between them: 0, 1, 2 (exit status 3)" in str(
        found[3]
    )


async def test_a_program_that_ends_after_each_result_is_no_fault_of_the_items(tmp_path: Path) -> None:
    async with program_of(tmp_path, ONE_EACH) as program:
        assert await outcomes(program, ["ada", "bob", "cyd", "dan", "eve"]) == [{"dm": "DM"}] * 5


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_the_daemon_goes_on_after_a_crash_and_stores_the_rest(
    node: Server, admin: Admin, tmp_path: Path, caplog: pytest.LogCaptureFixture, concurrency: int
) -> None:
    caplog.set_level(logging.INFO, "coordinator.client")
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 10})
    await admin.add(29)
    await admin.add(1, "bad")
    async with (
        program_of(tmp_path, DIES) as program,
        at_work(node, tmp_path, program.checker("dm_check"), concurrency=concurrency) as daemon,
    ):
        await settled(node, 29)
        assert not daemon.done()
        assert (await client_row(admin))["health"] != "flagged"

    failed = {line for line in caplog.messages if "cannot be checked" in line}
    assert len(failed) == 1
    assert "(bad0) cannot be checked: the program dies over this item (exit status 3)" in failed.pop()
    assert any("is done: 9 stored, 1 go back" in line for line in caplog.messages)


async def test_what_was_good_is_stored_when_the_program_is_given_up(
    node: Server, admin: Admin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coordinator.client")
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 20})
    await admin.add(20)
    async with (
        program_of(tmp_path, GIVES_FIVE) as program,
        at_work(node, tmp_path, program.checker("dm_check"), concurrency=1) as daemon,
    ):
        with pytest.raises(ProgramFailed):
            await within(asyncio.shield(daemon), 20)
        await settled(node, 5)
    assert any("is done: 5 stored, 15 go back" in line for line in caplog.messages)


async def test_a_program_is_waited_for_though_it_was_being_ended_already(tmp_path: Path) -> None:
    with logged("has closed its output") as closed:
        async with program_of(tmp_path, CLOSES_ITS_OUTPUT):
            await closed.wait()

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "program.pid").read_text()), 0)


def test_deaths_without_an_item_are_counted() -> None:
    suspects = CrashSuspects()
    for _ in range(2):
        assert suspects.died([]) is None
        assert suspects.verdict() is None
    suspects.heard()
    for _ in range(2):
        suspects.died([])
    assert suspects.verdict() is None
    suspects.died([])
    assert suspects.verdict() == "died 3 times without a result"


def test_suspects_are_tried_oldest_first_and_one_death_alone_may_be_chance() -> None:
    suspects = CrashSuspects()
    assert suspects.died([4, 5, 6]) is None
    assert suspects.next == 4
    suspects.ended(4)
    assert suspects.died([5]) is None
    assert suspects.next == 5
    assert suspects.died([5]) == 5
    suspects.ended(5)
    assert suspects.next == 6
    suspects.ended(6)
    assert suspects.next is None
