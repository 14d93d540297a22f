"""Programs that some tests need, and that not every machine has."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def leave_out(reason: str) -> NoReturn:
    """Skip a test for want of a program; where `CI` is set, that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """Return the path of a program of one of Debian's packages; without it the test is left out."""
    return shutil.which(name) or leave_out(f"this test needs {name} (Debian's package {package})")
