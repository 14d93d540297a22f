"""An account without a home folder and a name, as containers have them: each command works or says what to do."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from coordinator.cli.requests import example_of
from coordinator.wire.admin import ANSWERS, AdminHello
from coordinator.wire.codec import tag_of

PROGRAM = Path(__file__).with_name("nobody_program.py")
NOWHERE = ["--server", "ws://127.0.0.1:9"]
TOKEN = ["--token", "t"]
ASK_FOR_A_FOLDER = "This account has no home folder to keep files in: give --data"

REQUESTS = {
    tag_of(request).replace("_", "-").replace(".", " "): request for request in ANSWERS if request is not AdminHello
}
CONFIRMED = ("item delete", "client erase")

OWN = {
    "serve": ([], 2, ASK_FOR_A_FOLDER),
    "config": ([], 2, ASK_FOR_A_FOLDER),
    "work": (["--service", "s", "--exec", "cat"], 2, ASK_FOR_A_FOLDER),
    "top": (["--once", *NOWHERE], 3, "127.0.0.1:9"),
    "backup": (["/nowhere/file"], 2, ASK_FOR_A_FOLDER),
    "restore": (["/nowhere/file"], 2, ASK_FOR_A_FOLDER),
    "item import": (["/dev/null", *NOWHERE, *TOKEN], 3, "127.0.0.1:9"),
    "db status": ([], 2, ASK_FOR_A_FOLDER),
    "db migrate": ([], 2, ASK_FOR_A_FOLDER),
    "db fence": ([], 2, ASK_FOR_A_FOLDER),
    "db upgrade": (["--backup", "/nowhere/file"], 2, ASK_FOR_A_FOLDER),
    "db distribute": ([], 2, ASK_FOR_A_FOLDER),
    "db sql": ([], 0, "CREATE TABLE"),
    "demo": (["--log-level", "x"], 2, "log_level"),  # it makes a folder of its own, so that its settings are read
}
"""The commands that are no requests: with which words, which exit code, and what they say."""


def leaves(group: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*before, name))
        else:
            yield " ".join((*before, name))


@pytest.fixture(scope="module")
def all_commands() -> list[str]:
    from coordinator.cli import build

    return list(leaves(get_command(build())))


def as_nobody(commands: list[list[str]]) -> list[tuple[int, str]]:
    """The exit code and the output of each command; none may have failed otherwise."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "COORDINATOR_"))}
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], input="".join(f"{json.dumps(words)}\n" for words in commands),
        capture_output=True, text=True, timeout=100, check=True, env={**environment, "COLUMNS": "300"},
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(commands), done.stderr
    for words, (_, said, fault) in zip(commands, answers, strict=True):
        assert fault is None, (words, said, fault)
    return [(code, said) for code, said, _ in answers]


def test_every_command_has_its_help(all_commands: list[str]) -> None:
    asked = [[*words.split(), "--help"] for words in all_commands]
    assert {code for code, _ in as_nobody([*asked, ["--version"]])} == {0}


@pytest.mark.parametrize("token", [TOKEN, []])
def test_every_request_goes_out_and_wants_no_folder(token: list[str]) -> None:
    texts = [example_of(request).partition(" >")[0].replace("{…}", "{}") for request in REQUESTS.values()]
    examples = [shlex.split(text)[1:] for text in texts]
    sure = [[*words, "--yes"] if " ".join(words[:2]) in CONFIRMED else words for words in examples]
    for words, (code, said) in zip(sure, as_nobody([[*words, *NOWHERE, *token] for words in sure]), strict=True):
        assert (code, "127.0.0.1:9" in said) == (3, True), (words, said)


def test_every_other_command_works_or_says_what_to_give(all_commands: list[str]) -> None:
    assert sorted(all_commands) == sorted([*REQUESTS, *OWN])
    answers = as_nobody([[*name.split(), *words] for name, (words, _, _) in OWN.items()])
    for (name, (_, expected, words)), (code, said) in zip(OWN.items(), answers, strict=True):
        assert (code, words in said) == (expected, True), (name, code, said)
