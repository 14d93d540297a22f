"""A clock that jumps from one event to the next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Step = Callable[..., object]


class Clock:
    """Events in the order of their times, and of their planning within one time.

    Times are seconds, to the microsecond, as the database has them.
    """

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self.events = 0
        self._planned = 0
        self._queue: list[tuple[float, int, Step, tuple[Any, ...]]] = []

    def after(self, seconds: float, step: Step, *values: Any) -> None:
        """Plan a step."""
        self.at(self.now + seconds, step, *values)

    def at(self, when: float, step: Step, *values: Any) -> None:
        """Plan a step; what is past is done next."""
        self._planned += 1
        heappush(self._queue, (max(round(when, 6), self.now), self._planned, step, values))

    def run(self, until: float) -> None:
        """Do all that is planned before then."""
        queue = self._queue
        while queue and queue[0][0] < until:
            self.now, _, step, values = heappop(queue)
            self.events += 1
            step(*values)
        self.now = until
