"""The node's use of its database, as rates of the last minute."""

from __future__ import annotations

from collections import deque
from time import monotonic

from coordinator.flow.core import Core
from coordinator.store.statement_stats import StatementSnapshot
from coordinator.wire.stats import DatabaseLoad, StatementRow

DATABASE_RATE_WINDOW = 60.0
"""Seconds over which the rates are taken."""

SAMPLE_INTERVAL = 1.0
"""Seconds between two samples that are remembered."""


class _Sample:
    """The sums over all statements at one time."""

    __slots__ = ("at", "calls", "rows", "seconds", "submits")

    def __init__(self, at: float, snapshot: StatementSnapshot, submits: int) -> None:
        self.at = at
        self.calls = sum(statement.calls for statement in snapshot.statements)
        self.rows = sum(statement.rows for statement in snapshot.statements)
        self.seconds = sum(statement.seconds for statement in snapshot.statements)
        self.submits = submits


class DatabaseRates:
    """Computes topic `database`; remembers samples from the first time on that somebody watches it."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._node = core.settings.node_name
        self._counters = core.counters
        self._samples: deque[_Sample] = deque()

    async def load(self) -> DatabaseLoad:
        """Return the load as it is now.  BEGIN, COMMIT and the like count as statements."""
        snapshot = self._database.load.snapshot()
        now = _Sample(monotonic(), snapshot, self._counters.submits)
        before = self._first_of_window(now)

        passed = max(now.at - before.at, SAMPLE_INTERVAL)
        submits = now.submits - before.submits

        def per_submit(number: float) -> float | None:
            return round(number / submits, 3) if submits else None

        return DatabaseLoad(
            node=self._node,
            statements_per_second=round((now.calls - before.calls) / passed, 1),
            rows_per_second=round((now.rows - before.rows) / passed, 1),
            busy=round((now.seconds - before.seconds) / passed, 4),
            statements_per_bucket=per_submit(now.calls - before.calls),
            rows_per_bucket=per_submit(now.rows - before.rows),
            milliseconds_per_bucket=per_submit((now.seconds - before.seconds) * 1000),
            pool_size=self._database.size,
            pool_waits=snapshot.pool_waits,
            pool_waited=round(snapshot.pool_seconds, 6),
            statements=[
                StatementRow(one.statement, one.calls, one.rows, round(one.seconds * 1000, 3))
                for one in snapshot.statements
            ],
        )

    def _first_of_window(self, now: _Sample) -> _Sample:
        """Remember a sample, and return the oldest one of the window."""
        samples = self._samples
        if not samples or now.at - samples[-1].at >= SAMPLE_INTERVAL * 0.9:
            samples.append(now)

        while len(samples) > 2 and samples[0].at < now.at - DATABASE_RATE_WINDOW:
            samples.popleft()

        return samples[0]
