"""Queries whose answer is kept as long as it takes to find it, times a factor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar, cast

from coordinator.errors import TooSlow
from coordinator.store.pool import Connection, Database

T = TypeVar("T")

PAUSE_FACTOR = 100
"""A query pauses for this many times as long as it takes: it has at most a hundredth of one connection's time."""

SHORT_PAUSE_FACTOR = 10
"""The same for queries that are always cheap; and for those of which one runs at a time."""

MAX_PAUSE = 60.0
"""Seconds after which a query runs again, however long it took."""

MIN_PAUSE = 0.9
"""Seconds between two runs: less than one, since a viewer that comes once a second must find a new answer."""


QUERY_DEADLINE = 5.0
"""Seconds that a query may take.  It is less than a statement may: one that passes that has the node connect anew, and
nobody who only watches may cause it."""


class CachedQuery(Generic[T]):
    """Runs one query for all who ask until its pause is over; one that took too long pauses as others do."""

    def __init__(
        self,
        database: Database,
        query: Callable[[Connection], Awaitable[T]],
        min_pause: float = MIN_PAUSE,
        pause_factor: int = PAUSE_FACTOR,
        deadline: float = QUERY_DEADLINE,
    ) -> None:
        self._database = database
        self._query = query
        self._min_pause = min_pause
        self._pause_factor = pause_factor
        self._deadline = deadline
        self._due = 0.0
        self._last_took = 0.0
        self.last: T | None = None
        """The last answer; None before the first."""
        self._too_slow = False
        self._running = asyncio.Lock()

    @property
    def fresh(self) -> bool:
        """Whether the last answer is good still."""
        return monotonic() < self._due

    async def get(self) -> T:
        """Return the last answer, or find a new one.

        Raises:
            TooSlow: it took too long, now or within its pause.
            Unavailable: the database is away.
        """
        async with self._running:
            if not self.fresh:
                await self._run()
            if self._too_slow:
                raise TooSlow(f"This takes longer than {self._deadline:g} s.")
            return cast(T, self.last)  # which may be None

    async def _run(self) -> None:
        begun = monotonic()
        try:
            async with asyncio.timeout(self._deadline), self._database.connection() as db:
                begun = monotonic()
                self.last = await self._query(db)
            self._too_slow = False
        except TimeoutError:
            self._too_slow = self.last is None  # an older answer is better than none
        ended = monotonic()

        # One slow run among quick ones is the machine's hiccup, not what the query costs: it must not age the answer.
        took, self._last_took = min(ended - begun, self._last_took), ended - begun

        # The shortest pause counts from the beginning, so that who comes once a second comes in time.
        pause = min(self._pause_factor * took, MAX_PAUSE)
        self._due = max(begun + self._min_pause, ended + pause)
