"""Tasks that belong to the node, not to the connection or signal that started them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from coordinator.observe.events import Events

log = structlog.get_logger()


class BackgroundTasks:
    """Runs tasks that no caller waits for; the failure of one is logged, and ends nothing else."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step in a task of its own."""
        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._events.emit("fault", f"a task of the node failed: {type(fault).__name__}")
            log.error("a task of the node failed", exc_info=fault)

    async def finish(self, within: float) -> None:
        """Wait for the running tasks, for so many seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)

    def cancel(self) -> None:
        """Cancel the tasks that still run."""
        for task in list(self._tasks):
            task.cancel()
