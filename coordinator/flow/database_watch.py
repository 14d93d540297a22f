"""Tells the log when the database goes and when it is back, a line each."""

from __future__ import annotations

import asyncio
from time import monotonic

import structlog

from coordinator.flow.core import Core

log = structlog.get_logger()

LOOK_INTERVAL = 0.5
"""Seconds between looks; they ask the database nothing."""


class DatabaseWatch:
    """Watches how the statements of this node fare."""

    def __init__(self, core: Core) -> None:
        self._database = core.database

    async def run(self) -> None:
        """Watch until cancelled."""
        since: float | None = None
        while True:
            trouble = self._database.trouble
            if trouble is not None and since is None:
                since = monotonic()
                log.warning("the database is in trouble", reason=trouble)
            elif trouble is None and since is not None:
                log.info("the database is well again", seconds=round(monotonic() - since, 1))
                since = None
            await asyncio.sleep(LOOK_INTERVAL)
