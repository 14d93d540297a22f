"""What the database is asked to do, and how long things take."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields

BIN = 600.0
"""Seconds over which the load is averaged; the busiest of these is the peak."""


@dataclass(slots=True)
class Work:
    """Work of one kind.

    `statements` count BEGIN, COMMIT and COPY too; `rows` are those written.  The others are what its cost depends on:
    `calls` (batches, transactions), `buckets` and `items` in them, and the `members` and `ready` buckets that were
    counted one by one.
    """

    calls: float = 0
    statements: float = 0
    rows: float = 0
    buckets: float = 0
    items: float = 0
    members: float = 0
    ready: float = 0

    def add(self, other: Work, times: float = 1.0) -> None:
        """Count other work too."""
        for name in _UNITS:
            setattr(self, name, getattr(self, name) + times * getattr(other, name))


_UNITS = tuple(one.name for one in fields(Work))


class Ledger:
    """Work by kind, in bins of time."""

    def __init__(self) -> None:
        self.bins: list[dict[str, Work]] = [defaultdict(Work)]

    def next_bin(self) -> None:
        """What follows belongs to the next one."""
        self.bins.append(defaultdict(Work))

    def note(self, kind: str, statements: float, rows: float = 0, *, buckets: int = 0, items: int = 0) -> Work:
        """Count one call."""
        work = self.bins[-1][kind]
        work.calls += 1
        work.statements += statements
        work.rows += rows
        work.buckets += buckets
        work.items += items
        return work


def total(bins: Iterable[dict[str, Work]]) -> dict[str, Work]:
    """All work of these bins, by kind."""
    found: dict[str, Work] = defaultdict(Work)
    for one in bins:
        for kind, work in one.items():
            found[kind].add(work)
    return found


class Spread:
    """How values (seconds) are spread, in steps of 2 %."""

    _STEP = math.log(1.02)
    _LEAST = 1e-4

    def __init__(self) -> None:
        self._weights: dict[int, float] = defaultdict(float)
        self.weight = 0.0
        self.most = 0.0

    def add(self, seconds: float, weight: float = 1.0) -> None:
        """One value, or several at once."""
        self._weights[round(math.log(max(seconds, self._LEAST)) / self._STEP)] += weight
        self.weight += weight
        self.most = max(self.most, seconds)

    def at(self, share: float) -> float | None:
        """The value that this share of all do not exceed; None if there are none."""
        passed, least = 0.0, share * self.weight
        for step, weight in sorted(self._weights.items()):
            passed += weight
            if passed >= least:
                return min(math.exp(step * self._STEP), self.most)
        return None

    def told(self) -> dict[str, float | None]:
        """The usual percentiles, and the most."""
        return {
            "count": self.weight,
            **{f"p{share:g}": self.at(share / 100) for share in (50, 90, 99, 99.9)},
            "max": self.most if self.weight else None,
        }
