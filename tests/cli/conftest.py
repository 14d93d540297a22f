from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import typer
from typer.testing import CliRunner, Result

from coordinator.cli import build
from tests.cli.scripted import TOKEN, Scripted, scripted


class Run(Protocol):
    def __call__(self, *words: str, input: str | bytes | None = None) -> Result: ...


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TOKEN", "DATABASE", "PORT", "HOST", "SERVER", "CA"):
        monkeypatch.delenv(f"COORDINATOR_{name}", raising=False)
    monkeypatch.setenv("COORDINATOR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="session")
def app() -> typer.Typer:
    return build()


@pytest.fixture
def run(app: typer.Typer) -> Run:
    """Runs any command."""
    return lambda *words, input=None: CliRunner().invoke(app, list(words), input=input)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted() as script:
        yield script


@pytest.fixture
def ask(run: Run, server: Scripted) -> Run:
    """Runs a command of the admin channel, against the scripted server."""
    return lambda *words, input=None: run(*words, "--server", server.url, "--token", TOKEN, input=input)
