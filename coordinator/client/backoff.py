"""The waits between one attempt and the next."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_DELAY = 0.5
"""Seconds before the second attempt, before jitter."""

MAX_DELAY = 15.0
"""Seconds.  Well inside the 120 s in which a server gives cut-off buckets back to their client."""

_MIN_SERVER_DELAY = 0.05
"""Seconds."""

_SERVER_DELAY_JITTER = 0.1
"""A wait that the server asked for grows by up to this share, so that not all clients return in one moment."""

_random_fraction = random.SystemRandom().random


class Backoff:
    """Waits that double from `first` to `most` seconds, each drawn from the upper half of its step.

    `chance` returns numbers from 0 up to 1; tests pass their own.
    """

    def __init__(
        self,
        first: float = FIRST_DELAY,
        most: float = MAX_DELAY,
        chance: Callable[[], float] = _random_fraction,
    ) -> None:
        self._first = first
        self._longest = most
        self._chance = chance
        self.tries = 0

    def next(self, at_least: float = 0.0) -> float:
        """Return the seconds to wait now: a little over `at_least` if the server named one, else the next step."""
        step = min(self._longest, self._first * 2.0 ** min(self.tries, 32))
        self.tries += 1
        if at_least > 0:
            return max(at_least, _MIN_SERVER_DELAY) * (1 + _SERVER_DELAY_JITTER * self._chance())
        return step * (0.5 + self._chance() / 2)

    def reset(self) -> None:
        """Start from the first step again, after a success."""
        self.tries = 0
