"""Queries whose answer is kept as long as it takes to find it, times a factor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic
from typing import Generic, TypeVar

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


class CachedQuery(Generic[T]):
    """Runs one query for all who ask until its pause is over; queries with the same `gate` run one after the other."""

    def __init__(
        self,
        database: Database,
        query: Callable[[Connection], Awaitable[T]],
        min_pause: float = MIN_PAUSE,
        pause_factor: int = PAUSE_FACTOR,
        gate: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self._database = database
        self._query = query
        self._min_pause = min_pause
        self._pause_factor = pause_factor
        self._gate = gate or nullcontext()
        self._due = 0.0
        self._last_took = 0.0
        self._answer: T
        self._running = asyncio.Lock()

    async def get(self) -> T:
        """Return the last answer, or find a new one.

        Raises:
            Unavailable: the database is away.
        """
        async with self._running:
            if monotonic() >= self._due:
                await self._run()
            return self._answer

    async def _run(self) -> None:
        async with self._gate, self._database.connection() as db:
            begun = monotonic()
            self._answer = await self._query(db)
            ended = monotonic()

        # One slow run among quick ones is the machine's hiccup, not what the query costs: it must not age the answer.
        took, self._last_took = min(ended - begun, self._last_took), ended - begun

        # The shortest pause counts from the beginning, so that who comes once a second comes in time.
        pause = min(self._pause_factor * took, MAX_PAUSE)
        self._due = max(begun + self._min_pause, ended + pause)
