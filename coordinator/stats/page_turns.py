"""Turns for the queries of pages: one runs at a time, and each viewer has its share of that time.

Those who ask take turns, however often each of them asks.  Who has used up its share rests, while others go on.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import NamedTuple

from coordinator.errors import RateLimited

PART_OF_THE_TIME = 0.2
"""Part of the time that the queries of one share may take in the long run."""

BURST = 0.5
"""Seconds of queries that a share may use at once: what is looked at asks for several tables."""

MOST_WAITING = 100
"""Queries of one share that wait for their turn; who asks for more is refused."""


class Share(NamedTuple):
    """Those whose turns are counted together, such as the viewers of one address; who is trusted need not rest."""

    name: str
    trusted: bool = False


class PageTurns:
    """Gives one turn after the other."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Share, deque[asyncio.Future[None]]] = OrderedDict()
        """Of each share that waits, those that do, oldest first; the share whose turn is next stands first."""
        self._paid_at: dict[Share, float] = {}
        """When each share will have paid for what it used; those that have are dropped now and then."""
        self._taken = False
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, share: Share) -> AsyncIterator[None]:
        """Wait for a turn, and charge the share for the time until it ends.

        Raises:
            RateLimited: too many queries of that share wait.
        """
        await self._enter(share)
        begun = monotonic()
        try:
            yield
        finally:
            self.charge(share, monotonic() - begun)
            if share in self._waiting:
                self._waiting.move_to_end(share)
            self._taken = False
            self._next()

    async def _enter(self, share: Share) -> None:
        queue = self._waiting.setdefault(share, deque())
        if len(queue) >= MOST_WAITING:
            raise RateLimited("Too many pages are asked for from here.", retry_after=1.0, scope="connection")
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(called)
        self._next()

        try:
            await called
        except asyncio.CancelledError:
            if called in queue:
                queue.remove(called)
            elif not called.cancelled():  # its turn came while it was cancelled
                self._taken = False
            self._next()
            raise

    def charge(self, share: Share, seconds: float) -> None:
        """Let a share rest for what it used."""
        if share.trusted:
            return
        now = monotonic()
        if len(self._paid_at) > 10_000:
            self._paid_at = {other: paid for other, paid in self._paid_at.items() if paid > now}
        self._paid_at[share] = max(now, self._paid_at.get(share, now)) + seconds / PART_OF_THE_TIME

    def _rest(self, share: Share, now: float) -> float:
        """Return the seconds until a share may have a turn; 0 or less if it may now."""
        return self._paid_at.get(share, now) - BURST / PART_OF_THE_TIME - now

    def _next(self) -> None:
        """Call whoever is next, unless a turn goes on or all who wait have to rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._taken:
            return

        now, soonest = monotonic(), math.inf
        for share, queue in list(self._waiting.items()):
            while queue and queue[0].cancelled():
                queue.popleft()
            if not queue:
                del self._waiting[share]
                continue

            rest = self._rest(share, now)
            if rest <= 0:
                self._taken = True
                queue.popleft().set_result(None)
                return
            soonest = min(soonest, rest)

        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(soonest, self._next)
