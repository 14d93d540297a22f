"""Single keys of a terminal, read while something is shown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator

_ARROWS = {b"\x1b[A": "k", b"\x1b[B": "j", b"\x1bOA": "k", b"\x1bOB": "j"}
"""The arrow keys, as the letters that do the same."""


@contextlib.contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call `pressed` with each key while the block lasts; does nothing where standard input is no terminal.

    Ctrl-C stays the interrupt that it is.
    """
    try:
        import termios  # not on Windows
        import tty
    except ModuleNotFoundError:
        yield
        return

    source = sys.stdin
    if not source.isatty():
        yield
        return

    def read() -> None:
        found = os.read(source.fileno(), 64)
        if found in _ARROWS:
            pressed(_ARROWS[found])
            return
        for letter in found.decode(errors="replace"):
            pressed(letter)

    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(source.fileno())
    tty.setcbreak(source.fileno())
    loop.add_reader(source.fileno(), read)
    try:
        yield
    finally:
        loop.remove_reader(source.fileno())
        termios.tcsetattr(source.fileno(), termios.TCSADRAIN, before)
