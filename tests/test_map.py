"""The map in the package's docstring names files and functions that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import coordinator

PACKAGE = Path(coordinator.__file__).parent
MAP = coordinator.__doc__ or ""

PLACES = sorted(set(re.findall(r"`([a-z0-9_/]+\.(?:py|ts|sql))(?:: ([A-Za-z_.]+))?`", MAP)))
FOLDERS = sorted(set(re.findall(r"`([a-z_/]+/)`", MAP)))


def names_in(file: Path) -> set[str]:
    """Functions, classes, their methods and fields, and constants of a file, methods with their class before them."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.AsyncFunctionDef)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_a_place_is_there(file: str, name: str) -> None:
    path = PACKAGE / file
    assert path.is_file()
    if name:
        assert name in names_in(path)


def test_the_map_names_places() -> None:
    assert len(PLACES) > 25
    assert all((PACKAGE / folder).is_dir() for folder in FOLDERS)


def test_all_packages_are_drawn() -> None:
    drawing = MAP.partition("The packages")[2].partition("Paths")[0]
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"sample"}
    assert packages <= set(re.findall(r"[a-z]+", drawing))
