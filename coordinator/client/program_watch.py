"""The time that a checker program takes: when it is silent for too long, and over which item it hangs."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_AFTER = 30.0
"""Seconds without a result after which a program may be one that keeps its output in a buffer."""


class ProgramWatch:
    """The open items of a program, oldest first, and since when it works on the oldest.

    A program may work on one item after the other or on several at once: over the oldest it hangs, if that stays the
    oldest for `item_timeout` seconds.
    """

    def __init__(self, item_timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.item_timeout = item_timeout
        self._clock = clock
        self._open: dict[int, None] = {}
        self._oldest_since = 0.0
        self._quiet_since = 0.0
        self._noted = False

    def started(self) -> None:
        """Begin anew: the program has been started, and has no item yet."""
        self._open.clear()
        self._oldest_since = self._quiet_since = self._clock()
        self._noted = False

    def asked(self, item: int) -> None:
        """Note an item that the program was given."""
        if not self._open:
            self._oldest_since = self._quiet_since = self._clock()
        self._open[item] = None

    def ended(self, item: int) -> None:
        """Note an item that is not open any more, whatever came of it."""
        if self._open and next(iter(self._open)) == item:
            self._oldest_since = self._clock()
        self._open.pop(item, None)

    def heard(self) -> None:
        """Note that the program has written a result: it is not silent, and need not be told again that it is."""
        self._noted = True

    def quiet_items(self) -> int:
        """Return how many items have waited for a program that has written nothing since it started; 0 if none have.

        It is told once.
        """
        if self._noted or not self._open or self._clock() - self._quiet_since < QUIET_AFTER:
            return 0
        self._noted = True
        return len(self._open)

    def overdue(self) -> int | None:
        """Return the item over which the program hangs, if it does."""
        if not self._open or self._clock() - self._oldest_since < self.item_timeout:
            return None
        return next(iter(self._open))

    def next_look(self) -> float | None:
        """Return the seconds until one of these may change; None while no item is open."""
        if not self._open:
            return None
        moments = [self._oldest_since + self.item_timeout]
        if not self._noted:
            moments.append(self._quiet_since + QUIET_AFTER)
        return max(0.0, min(moments) - self._clock())
