"""The reasons why a checker program cannot be started, and what to do about them."""

from __future__ import annotations

import errno
from pathlib import Path


def why_not_run(program: str) -> str:
    """Say why there is no program of that name that can be run."""
    path = Path(program)
    if path.is_dir():
        return f"{program!r} is a folder, no program."
    if path.is_file() and path.name != program:
        return f"The program {program!r} is not executable: chmod +x {program}"
    if path.is_file():
        return f"There is no program {program!r} on the PATH; for the file in this folder write ./{program}"
    return f"There is no program {program!r} that can be run."


def why_not_started(program: str, failure: Exception) -> str:
    """Say why a program that is there did not start."""
    if isinstance(failure, OSError) and failure.errno == errno.ENOEXEC:
        return (
            f"The program {program!r} cannot be started: it is not made for this machine or, if it is a script, its "
            "first line does not name what runs it, such as #!/usr/bin/env python3"
        )
    if isinstance(failure, FileNotFoundError):
        return f"The program {program!r} cannot be started: what its first line, #!…, names is not there."
    return f"The program {program!r} cannot be started: {failure}."
