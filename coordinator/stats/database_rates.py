"""What this node asks of its database, as rates of the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from coordinator.store.pool import Database
from coordinator.store.statement_stats import StatementSnapshot
from coordinator.wire.stats import DatabaseLoad, StatementRow

OVER = 60.0
"""Seconds over which rates are taken."""

EVERY = 1.0
"""Seconds between two looks that are remembered."""


class _Sums:
    """All statements together, at one time."""

    __slots__ = ("at", "calls", "rows", "seconds", "submits")

    def __init__(self, at: float, load: StatementSnapshot, submits: int) -> None:
        self.at = at
        self.calls = sum(one.calls for one in load.statements)
        self.rows = sum(one.rows for one in load.statements)
        self.seconds = sum(one.seconds for one in load.statements)
        self.submits = submits


class DatabaseRates:
    """Topic `database`; begins to remember when somebody first looks."""

    def __init__(self, database: Database, node: str, submits: Callable[[], int]) -> None:
        self._database = database
        self._node = node
        self._submits = submits
        self._past: deque[_Sums] = deque()

    async def look(self) -> DatabaseLoad:
        """The load as it is now.  BEGIN, COMMIT and the like count as statements."""
        load, now = self._database.load.snapshot(), monotonic()
        sums = _Sums(now, load, self._submits())
        if not self._past or now - self._past[-1].at >= EVERY * 0.9:
            self._past.append(sums)
        while len(self._past) > 2 and self._past[0].at < now - OVER:
            self._past.popleft()
        before = self._past[0]
        passed = max(now - before.at, EVERY)
        buckets = sums.submits - before.submits

        def each(number: float) -> float | None:
            return round(number / buckets, 3) if buckets else None

        return DatabaseLoad(
            node=self._node,
            statements_per_second=round((sums.calls - before.calls) / passed, 1),
            rows_per_second=round((sums.rows - before.rows) / passed, 1),
            busy=round((sums.seconds - before.seconds) / passed, 4),
            statements_per_bucket=each(sums.calls - before.calls),
            rows_per_bucket=each(sums.rows - before.rows),
            milliseconds_per_bucket=each((sums.seconds - before.seconds) * 1000),
            pool_size=self._database.size,
            pool_waits=load.pool_waits,
            pool_waited=round(load.pool_seconds, 6),
            statements=[
                StatementRow(one.statement, one.calls, one.rows, round(one.seconds * 1000, 3))
                for one in load.statements
            ],
        )
