"""Lines of the log of which there may be any number: those of a program, or of items that cannot be checked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("coordinator.client")

LINES = 10
"""Lines of one source in one window, and the seconds of that window."""
WINDOW = 10.0

_MAX_LINE = 500
"""Characters of a line."""


class LimitedLog:
    """The log of one source, which is named before each line; what exceeds the limit is counted."""

    def __init__(self, source: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._began = float("-inf")
        self._lines = 0
        self._left_out = 0

    def line(self, text: str) -> None:
        """Pass one line on, or count it."""
        now = self._clock()
        if now - self._began >= WINDOW:
            self.flush()
            self._began, self._lines = now, 0

        if self._lines >= LINES:
            self._left_out += 1
            return
        self._lines += 1
        shown = text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}…"
        log.warning("%s: %s", self._source, shown)

    def flush(self) -> None:
        """Tell how many lines were left out since it was told last."""
        if self._left_out:
            log.warning("%s: %d more lines were left out", self._source, self._left_out)
            self._left_out = 0
