"""Group commit: submits that arrive together are stored together, each with an answer of its own.

A worker takes all that waits (one submit of a bucket at a time: the second must see what the first did), stores it in
one transaction, and only after the commit are the answers given.  What the batch passes over, and every submit of a
batch that failed, is then settled on its own, so that only the guilty one fails.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass

import structlog

from coordinator.errors import PeerError, Unavailable
from coordinator.flow.core import Core
from coordinator.model import ServiceId
from coordinator.store import results
from coordinator.store.results import CheckedSubmit, SubmitOutcome

log = structlog.get_logger()

BATCH = 128
"""Submits to a transaction."""

WORKERS = 2
"""Transactions at once: while one waits for its commit, the other checks and copies."""


@dataclass(slots=True, eq=False)
class _Waiting:
    settling: CheckedSubmit
    answer: asyncio.Future[SubmitOutcome]


class Commits:
    """The queue of submits that are checked and wait for their commit."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._recollect_window = core.settings.recollect_window
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._apart: defaultdict[ServiceId, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(WORKERS))

    async def add(self, settling: CheckedSubmit) -> SubmitOutcome:
        """Store one submit with the next batch; returns after the commit.

        Raises:
            PeerError: it was refused; nothing of it is stored.
            Unavailable: it is not known whether it was stored.
        """
        waiting = _Waiting(settling, asyncio.get_running_loop().create_future())
        if settling.keep is not None:
            # Its plugin may be slow, or fail: that concerns nobody else.
            async with self._apart[settling.service_id]:
                await self._store_one(waiting)
        else:
            self._queue.append(waiting)
            self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Store what arrives, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._store(batch)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        later: list[_Waiting] = []
        buckets = set()
        while self._queue and len(taken) < BATCH:
            one = self._queue.popleft()
            if one.settling.bucket_id in buckets:
                later.append(one)
            else:
                buckets.add(one.settling.bucket_id)
                taken.append(one)
        self._queue.extendleft(reversed(later))
        if not self._queue:
            self._arrived.clear()
        return taken

    async def _store(self, batch: list[_Waiting]) -> None:
        try:
            async with self._database.transaction() as db:
                outcomes = await results.settle(db, [one.settling for one in batch], self._recollect_window)
        except Unavailable as failure:
            for one in batch:
                _fail(one, failure)
            return
        except asyncio.CancelledError:
            for one in batch:
                _fail(one, Unavailable("It is not known whether the submit was stored."))
            raise
        except Exception as failure:
            log.warning("batch failed, storing one by one", submits=len(batch), error=repr(failure))
            outcomes = [None] * len(batch)
        for one, outcome in zip(batch, outcomes, strict=True):
            if outcome is not None:
                _answer(one, outcome)
        for one, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                await self._store_one(one)

    async def _store_one(self, one: _Waiting) -> None:
        try:
            async with self._database.transaction() as db:
                outcome, _ = await results.settle_one(db, one.settling, self._recollect_window)
        except (PeerError, Unavailable) as failure:
            _fail(one, failure)
        except Exception as failure:
            # A fault of ours, or of a plugin: it is answered and logged, and the worker goes on.
            settling = one.settling
            log.exception(
                "a submit could not be stored",
                client=settling.client_id,
                service_id=settling.service_id,
                bucket=str(settling.bucket_id),
            )
            _fail(one, failure)
        else:
            _answer(one, outcome)


def _answer(one: _Waiting, outcome: SubmitOutcome) -> None:
    if not one.answer.done():
        one.answer.set_result(outcome)


def _fail(one: _Waiting, failure: Exception) -> None:
    if not one.answer.done():
        one.answer.set_exception(failure)
