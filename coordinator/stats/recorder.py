"""Writes once a second what this node counted and what happened on it, and adds up what the triggers counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.client_counters import ClientCounters
from coordinator.model import Boot
from coordinator.observe.events import Event, Events
from coordinator.store import events as store
from coordinator.store import history, statistics
from coordinator.store.pool import Database

log = structlog.get_logger()

MOST_EVENTS = 100
"""Events of one second that are written; of more, those go first that say least."""

FORGET = 60.0
"""Seconds between looks for what is too old to be kept."""


class Recorder:
    """The pen of one node."""

    def __init__(self, database: Database, counters: ClientCounters, events: Events, boot: Boot) -> None:
        self._database = database
        self._counters = counters
        self._events = events
        self._boot = boot
        self._written = 0
        self._forget_at = 0.0

    async def run(self) -> None:
        """At half past each second, until cancelled."""
        while True:
            await asyncio.sleep(1.0 - (time() - 0.5) % 1.0)
            try:
                await self.write()
                await self._tidy()
            except Unavailable:
                pass  # the counts are kept, and of the events the newest
            except Exception:
                # Statistics must not end the node: what is wrong is told, and tried again.
                log.exception("statistics cannot be written")
                self._events.emit("fault", "statistics cannot be written")
                await asyncio.sleep(FORGET)

    async def write(self) -> None:
        """What has come since the last time.

        Raises:
            Unavailable: the database is away.
        """
        await self._counters.flush(self._database)
        newest = self._events.newest
        fresh = _most_telling(self._events.since(self._written))
        if fresh:
            now = time()
            told = [(max(0.0, now - one.at), one.kind, one.client, one.service, one.bucket, one.text) for one in fresh]
            async with self._database.connection() as db:
                await store.write(db, self._boot, told)
        self._written = newest

    async def _tidy(self) -> None:
        async with self._database.connection() as db:
            await statistics.fold(db)
            now = asyncio.get_running_loop().time()
            if now >= self._forget_at:
                await history.forget(db)
                await store.forget(db)
                self._forget_at = now + FORGET


def _most_telling(events: Sequence[Event]) -> list[Event]:
    if len(events) > MOST_EVENTS:
        events = [one for one in events if one.kind != "connect"]
    return list(events[-MOST_EVENTS:])
