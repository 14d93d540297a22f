"""The node's own entries in the activity log, and the deletion of old entries."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.store import activity

log = structlog.get_logger()

FLUSH_INTERVAL = 2.0
"""Seconds between writes; equal faults in between become one entry."""

PARTITION_INTERVAL = 3600.0
"""Seconds between checks for months to add to the log, or to drop."""

MAX_PENDING_FAULTS = 1000
"""Different faults that are remembered while the database is away."""


class ActivityLog:
    """Writes the faults of one node to the activity log, and deletes old months.

    Faults are not written where they occur: that may be in a transaction that fails because of them.
    """

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._retention = core.settings.activity_retention
        self._events = core.events
        self._actor = core.actor
        self._faults: dict[tuple[str, str], tuple[str, int]] = {}

    def fault(self, action: str, target: str, reason: str) -> None:
        """Note a fault; it is written within FLUSH_INTERVAL."""
        # The event is without the reason: anyone may see events, and an exception's text may contain anything.
        self._events.emit("fault", f"{action} {target}")
        _, times = self._faults.get((action, target), ("", 0))
        if times or len(self._faults) < MAX_PENDING_FAULTS:
            self._faults[action, target] = (reason[:500], times + 1)

    async def run(self) -> None:
        """Write faults and delete old months, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()

        while True:
            try:
                if loop.time() >= due:
                    async with self._database.connection() as db:
                        await activity.keep(db, self._retention)
                    due = loop.time() + PARTITION_INTERVAL
                await self.flush()
            except Unavailable:
                pass  # the faults are written when the database is back
            except Exception:
                # The activity log must not end the node: its error is logged, and the next round tries again.
                log.exception("the activity log cannot be kept")
                due = loop.time() + PARTITION_INTERVAL
            await asyncio.sleep(FLUSH_INTERVAL)

    async def flush(self) -> None:
        """Write the faults noted since the last time.

        Raises:
            Unavailable: the database is away; the faults are kept.
        """
        if not self._faults:
            return
        async with self._database.connection() as db:
            for (action, target), (reason, times) in list(self._faults.items()):
                text = reason if times == 1 else f"{reason} ({times} times)"
                await activity.note(db, self._actor, action, target, text)
                del self._faults[action, target]
