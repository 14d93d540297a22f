"""Looking at the database no more often than is cheap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic
from typing import Generic, TypeVar

from coordinator.store.pool import Connection, Database

T = TypeVar("T")

SHARE = 100
"""A look is not taken again before this many times as long as it took: at most a hundredth of one connection's time."""

SMALL_SHARE = 10
"""The same for looks that cost always the same, and little; and for those of which one is taken at a time."""

LONGEST = 60.0
"""Seconds after which it is taken again, however long it took."""

EACH_SECOND = 0.9
"""Seconds between looks for whoever comes once a second and must not miss one."""


class CachedQuery(Generic[T]):
    """What a look found, for all who ask until it is due again; what passes through one `gate` is looked at in turn."""

    def __init__(
        self,
        database: Database,
        look: Callable[[Connection], Awaitable[T]],
        least: float = EACH_SECOND,
        share: int = SHARE,
        gate: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self._database = database
        self._look = look
        self._least = least
        self._share = share
        self._gate = gate or nullcontext()
        self._due = 0.0
        self._found: T
        self._looking = asyncio.Lock()

    async def get(self) -> T:
        """What was found last, or what is found now.

        Raises:
            Unavailable: the database is away.
        """
        async with self._looking:
            if monotonic() >= self._due:
                async with self._gate, self._database.connection() as db:
                    begun = monotonic()
                    self._found = await self._look(db)
                    now = monotonic()
                # From the beginning on, so that who comes once a second comes in time.
                self._due = max(begun + self._least, now + min(self._share * (now - begun), LONGEST))
            return self._found
