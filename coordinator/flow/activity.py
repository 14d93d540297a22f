"""What a node itself notes in the activity log, and for how long the log is kept."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.store import activity

log = structlog.get_logger()

FLUSH = 2.0
"""Seconds for which faults of one kind are gathered into one line."""

KEEP = 3600.0
"""Seconds between looks for months to make ready or to drop."""

MOST = 1000
"""Kinds of faults that are remembered while the database is away."""


class ActivityLog:
    """The lines of one node.

    Faults are not written where they happen: that may be in a transaction that fails because of them.
    """

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._retention = core.settings.activity_retention
        self._events = core.events
        self._actor = core.actor
        self._faults: dict[tuple[str, str], tuple[str, int]] = {}

    def fault(self, action: str, target: str, what: str) -> None:
        """Note a fault soon."""
        # Without what was wrong: anyone may see events, and an exception may have anything in its words.
        self._events.emit("fault", f"{action} {target}")
        _, times = self._faults.get((action, target), ("", 0))
        if times or len(self._faults) < MOST:
            self._faults[action, target] = (what[:500], times + 1)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                if loop.time() >= due:
                    async with self._database.connection() as db:
                        await activity.keep(db, self._retention)
                    due = loop.time() + KEEP
                await self.flush()
            except Unavailable:
                pass  # what is gathered is written when the database is back
            except Exception:
                # The log must not end the node: what is wrong with it is told, and tried again.
                log.exception("the activity log cannot be kept")
                due = loop.time() + KEEP
            await asyncio.sleep(FLUSH)

    async def flush(self) -> None:
        """Write the faults that were gathered."""
        if not self._faults:
            return
        async with self._database.connection() as db:
            for (action, target), (what, times) in list(self._faults.items()):
                await activity.note(db, self._actor, action, target, what if times == 1 else f"{what} ({times} times)")
                del self._faults[action, target]
