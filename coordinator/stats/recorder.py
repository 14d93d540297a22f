"""Writes once a second what this node counted and what happened on it, and adds up what the triggers counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import time

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.round_steps import RoundSteps, Step
from coordinator.observe.events import NodeEvent
from coordinator.store import boards, history, statistics
from coordinator.store import events as store
from coordinator.store.pool import Connection

log = structlog.get_logger()

EVENTS_WRITTEN_AT_ONCE = 100
"""Events of one second that are written; of more, connects are left out, then the oldest that are not serious."""

FOLD_INTERVAL_WHEN_IDLE = 5.0
"""Seconds until it is looked again for counts to fold, after there were none."""

PURGE_INTERVAL = 60.0
"""Seconds between two deletions of what is too old to be kept."""


class Recorder:
    """Keeps the past of this node in the database."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._counters = core.counters
        self._events = core.events
        self._boot = core.boot
        self._written = 0
        self._writing = asyncio.Lock()
        self._steps = RoundSteps()
        self._purge_at = 0.0
        self._fold_at = 0.0

    async def run(self) -> None:
        """Write at half past each second, until cancelled."""
        while True:
            await asyncio.sleep(1.0 - (time() - 0.5) % 1.0)
            for part in (self.write, self._tidy):
                try:
                    await part()
                except Unavailable:
                    pass  # the counts are kept, and of the events the newest
                except Exception as fault:
                    # Statistics must not end the node: what is wrong is told, and tried again.
                    log.exception("statistics cannot be written")
                    self._events.emit("fault", f"statistics cannot be written: {type(fault).__name__}")

    async def write(self) -> None:
        """Write what has come since the last time; one at a time, so that no event is written twice.

        Raises:
            Unavailable: the database is away.
            Exception: as `RoundSteps.run`.
        """
        async with self._writing:
            await self._steps.run((("counts", self._write_counts), ("events", self._write_events)))

    async def _write_counts(self) -> None:
        await self._counters.flush(self._database)

    async def _write_events(self) -> None:
        newest = self._events.newest
        chosen = _most_telling(self._events.since(self._written))
        if chosen:
            async with self._database.connection() as db:
                await store.write(db, self._boot, _aged(chosen))
        self._written = newest

    async def _tidy(self) -> None:
        """Fold the counts of the triggers, while there are some; now and then, delete what is too old."""
        now = asyncio.get_running_loop().time()
        due: list[tuple[str, Step]] = []
        if now >= self._fold_at:
            due.append(("counts of triggers", self._fold))
        if now >= self._purge_at:
            self._purge_at = now + PURGE_INTERVAL
            due += (
                ("old history", partial(self._forget, history.forget)),
                ("days that are over", partial(self._forget, boards.fold_days)),
                ("old events", partial(self._forget, store.forget)),
            )
        await self._steps.run(due)

    async def _fold(self) -> None:
        async with self._database.connection() as db:
            if not await statistics.fold(db):
                self._fold_at = asyncio.get_running_loop().time() + FOLD_INTERVAL_WHEN_IDLE

    async def _forget(self, forget: Callable[[Connection], Awaitable[None]]) -> None:
        async with self._database.connection() as db:
            await forget(db)


def _aged(events: Sequence[NodeEvent]) -> list[store.EventRow]:
    now = time()
    return [
        (max(0.0, now - one.at), one.kind, one.client, one.service, one.bucket, one.text, one.severity)
        for one in events
    ]


def _most_telling(events: Sequence[NodeEvent]) -> list[NodeEvent]:
    if len(events) > EVENTS_WRITTEN_AT_ONCE:
        events = [event for event in events if event.kind != "connect"]
    if len(events) > EVENTS_WRITTEN_AT_ONCE:
        newest_first = sorted(events, key=lambda event: (event.severity == "info", -event.number))
        events = sorted(newest_first[:EVENTS_WRITTEN_AT_ONCE], key=lambda event: event.number)
    return list(events)
