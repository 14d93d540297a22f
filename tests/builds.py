"""Builds of the program, each in a folder of its own: this tree's, and one of a commit before it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from coordinator.store.migrate import Migration

ROOT = Path(__file__).parent.parent

MIGRATIONS = ("coordinator/store/migrations", "coordinator/services/follow/migrations")

COMMITS_LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Build:
    """An installed build, whose folder is to be first on Python's path."""

    folder: Path

    def command(self, *words: str) -> list[str]:
        """Return the words that run a command of this build; with `environment`, and not in this tree."""
        return [sys.executable, "-m", "coordinator", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder)}

    def run(self, *words: str) -> str:
        """Run a command to its end; what it prints."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add_migration(self, migration: Migration) -> None:
        """Let this build know one more migration of the coordinator."""
        name = f"{migration.number:04}_{migration.name}.sql"
        (self.folder / MIGRATIONS[0] / name).write_text(migration.sql)


def build(commit: str | None, folder: Path) -> Build:
    """Build the program of a commit, or of this tree as it is, and install it in a folder."""
    source = ROOT
    if commit is not None:
        source = folder / "source"
        source.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)

    installed = folder / "installed"
    words = "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", installed, source
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True)
    return Build(installed)


def former_commit() -> str | None:
    """Find the newest commit before this one that has another program and can serve this schema.

    None: there is none, such as where each has a first migration of its own, since nothing was released yet, or in a
    clone without its past.
    """
    mine = _files(None)
    for commit in _git("rev-list", f"--max-count={COMMITS_LOOKED_AT}", "--first-parent", "HEAD~1"):
        if not _can_serve(_files(commit), mine):
            return None
        if _git("diff", "--name-only", commit, "--", "coordinator"):
            return commit
    return None


def _can_serve(former: dict[str, str], mine: dict[str, str]) -> bool:
    """Tell whether a program with those migrations works on the schema of these, both by path, with their text."""
    more = mine.keys() - former.keys()
    return former.items() <= mine.items() and all(Migration(0, "", mine[path]).additive for path in more)


def _files(commit: str | None) -> dict[str, str]:
    """Read the migrations of a commit, or of this tree."""
    if commit is None:
        found = [file for folder in MIGRATIONS for file in (ROOT / folder).glob("*.sql")]
        return {str(file.relative_to(ROOT)): file.read_text() for file in found}
    paths = _git("ls-tree", "-r", "--name-only", commit, "--", *MIGRATIONS)
    return {path: "\n".join(_git("show", f"{commit}:{path}")) + "\n" for path in paths}


def _git(*words: str) -> list[str]:
    """Run git; the lines of its output, none if it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []
