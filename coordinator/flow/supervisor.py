"""Starts the parts of a node again that fail.

A fault of a part concerns what it was about, and nobody else: it is logged, counted, told in `/readyz`, and the part is
started again.  Only a node without its lease or its listener must not go on: those parts end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from coordinator.flow.core import Core

log = structlog.get_logger()

FIRST_PAUSE = 0.1
"""Seconds before a part that failed is started again; doubles with each failure in a row."""

LONGEST_PAUSE = 30.0
"""Seconds that such a pause takes at most; a part that runs for longer has recovered."""

Run = Callable[[], Awaitable[None]]
"""Works until cancelled."""


class Supervisor:
    """Runs the parts of one node."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._failed_at: dict[str, float] = {}

    def failing(self) -> list[str]:
        """Return the names of parts that failed lately and may not have recovered."""
        now = monotonic()
        return sorted(name for name, at in self._failed_at.items() if now - at < LONGEST_PAUSE)

    async def keep_running(self, name: str, run: Run) -> None:
        """Run a part until cancelled, again and again if it fails."""
        pause = FIRST_PAUSE
        while True:
            begun = monotonic()
            await self._run_once(name, run)

            if monotonic() - begun > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def run_vital(self, name: str, run: Run) -> None:
        """Run a part that the node cannot be without; its end is the node's."""
        state = self._core.state
        await self._run_once(name, run)
        state.failed = True
        state.stopped.set()

    async def _run_once(self, name: str, run: Run) -> None:
        cause = "it ended by itself"
        try:
            await run()
            log.error("a part of the node ended by itself", part=name)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            cause = "it was cancelled"
            log.exception("a part of the node failed: it was cancelled, and nobody did it", part=name)
        except Exception as fault:
            cause = type(fault).__name__
            log.exception("a part of the node failed", part=name)
        self._failed_at[name] = monotonic()
        self._core.events.emit("fault", f"the part {name} of the node failed: {cause}")
