"""The Pythons that the package names: the volunteers' tests by those that are here, wheels for all others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

HERE = Path(__file__).parent.parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
NAMED = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
OTHERS = NAMED[1:]
"""Those beside the one that the whole suite runs with."""

TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "hypothesis", "trustme")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64")
TRIED = ("test_client.py", "test_x_api.py")


def interpreter(version: str) -> Path | None:
    """A Python of this version on this machine, by the path or by pyenv."""
    if (found := shutil.which(f"python{version}")) is not None and works(Path(found)):
        return Path(found)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return next((path for path in sorted(root.glob(f"versions/{version}.*/bin/python")) if works(path)), None)


def works(python: Path) -> bool:
    """Whether it starts; pyenv leaves programs on the path for versions that are not chosen."""
    return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0


def run(*words: str | Path) -> None:
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_those_that_are_named_are_those_that_may_install_it() -> None:
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert NAMED == ["3.11", "3.12", "3.13", "3.14"]
    assert all(allowed.contains(f"{version}.0") for version in (*NAMED, "3.15"))  # a library refuses it first
    assert not allowed.contains("3.10.0")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", OTHERS)
def test_volunteers_can_use(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        wheels_are_there(version, tmp_path)
        return
    run(python, "-m", "venv", tmp_path / "venv")
    own = tmp_path / "venv/bin/python"
    run(own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ".[socks]", *TOOLS)
    run(own, "-m", "coordinator", "work", "--help")
    run(own, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider", *(f"tests/client/{name}" for name in TRIED))


def wheels_are_there(version: str, folder: Path) -> None:
    """Let pip choose a wheel for each dependency, and install none."""
    needed = [Requirement(line) for line in PROJECT["dependencies"]]
    run(
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"),
        *("--disable-pip-version-check", "--ignore-installed", "--only-binary", ":all:", "--target", folder),
        *("--python-version", version, *(word for name in PLATFORMS for word in ("--platform", name))),
        *(f"{one.name}{one.specifier}" for one in needed),
    )
