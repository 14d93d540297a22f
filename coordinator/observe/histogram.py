"""Histograms of how long clients wait, by service; a sample costs a bisection and two additions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

from coordinator.model import ServiceId

DURATION_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds at which spans end: from the usual duration (3 ms) to the longest one of a statement (10 s), and beyond."""


class Histogram:
    """Durations of one kind, sorted by length, for each service."""

    def __init__(self) -> None:
        self._counts: dict[ServiceId, list[int]] = {}
        self._sums: dict[ServiceId, float] = {}

    def add(self, service: ServiceId, seconds: float) -> None:
        """Count one that took so long."""
        counts = self._counts.get(service)
        if counts is None:
            counts = self._counts[service] = [0] * (len(DURATION_BOUNDS) + 1)
            self._sums[service] = 0.0
        counts[bisect_left(DURATION_BOUNDS, seconds)] += 1
        self._sums[service] += seconds

    def sums(self) -> Mapping[ServiceId, float]:
        """Return the sum of all durations of each service, in seconds."""
        return self._sums

    def up_to(self, service: ServiceId) -> list[tuple[str, int]]:
        """Return how many took no longer than each bound; the last has all of them."""
        return list(zip([*map(repr, DURATION_BOUNDS), "+Inf"], accumulate(self._counts[service]), strict=True))


class WaitTimes:
    """Durations that clients of this node wait."""

    def __init__(self) -> None:
        self.bucket = Histogram()
        """From an ask to the bucket; also while there is none."""
        self.stored = Histogram()
        """From a submit to its commit."""
