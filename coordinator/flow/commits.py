"""Group commit: submits that arrive together are stored together, each with an answer of its own.

A worker takes all that waits (one submit of a bucket at a time: the second must see what the first did), and stores it
in one transaction; the answers are given only after the commit.  Submits that the batch passes over, and all of a batch
that failed, are then settled one by one, so that only the guilty one fails, beside the batches that follow.
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

MOST_SUBMITS_A_COMMIT = 128
"""Submits that are stored in one transaction."""

COMMITS_AT_ONCE = 2
"""Transactions under way at once: while one waits for its commit, the other checks and copies."""


@dataclass(slots=True, eq=False)
class _WaitingSubmit:
    settling: CheckedSubmit
    answer: asyncio.Future[SubmitOutcome]


class Commits:
    """The queue of submits that are checked and wait for their commit."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._recollect_window = core.settings.recollect_window
        self._queue: deque[_WaitingSubmit] = deque()
        self._arrived = asyncio.Event()
        self._group: asyncio.TaskGroup
        self._apart: defaultdict[ServiceId, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(COMMITS_AT_ONCE))

    async def add(self, settling: CheckedSubmit) -> SubmitOutcome:
        """Store one submit with the next batch; returns after the commit.

        Raises:
            PeerError: it was refused; nothing of it is stored.
            Unavailable: it is not known whether it was stored.
        """
        waiting = _WaitingSubmit(settling, asyncio.get_running_loop().create_future())

        if settling.keep is not None:
            # Its plugin may be slow, or fail: that concerns nobody else.
            async with self._apart[settling.service_id]:
                await self._store_alone(waiting)
        else:
            self._queue.append(waiting)
            self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Store what arrives, until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for _ in range(COMMITS_AT_ONCE):
                self._group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._store(batch)

    def _take(self) -> list[_WaitingSubmit]:
        """Take the next batch, one submit of each bucket; the others keep their places."""
        taken: list[_WaitingSubmit] = []
        later: list[_WaitingSubmit] = []
        buckets = set()
        while self._queue and len(taken) < MOST_SUBMITS_A_COMMIT:
            waiting = self._queue.popleft()
            if waiting.settling.bucket_id in buckets:
                later.append(waiting)
            else:
                buckets.add(waiting.settling.bucket_id)
                taken.append(waiting)

        self._queue.extendleft(reversed(later))
        if not self._queue:
            self._arrived.clear()
        return taken

    async def _store(self, batch: list[_WaitingSubmit]) -> None:
        """Store a batch in one transaction, and beside the next ones what it does not settle, one by one."""
        try:
            async with self._database.transaction() as db:
                outcomes = await results.settle(db, [waiting.settling for waiting in batch])
        except Unavailable as failure:
            for waiting in batch:
                _fail(waiting, failure)
            return
        except asyncio.CancelledError:
            for one in batch:
                _fail(one, Unavailable("It is not known whether the submit was stored."))
            raise
        except Exception as failure:
            log.warning("batch failed, storing one by one", submits=len(batch), error=repr(failure))
            outcomes = [None] * len(batch)

        for waiting, outcome in zip(batch, outcomes, strict=True):
            if outcome is not None:
                _answer(waiting, outcome)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                self._group.create_task(self._store_apart(waiting))

    async def _store_apart(self, waiting: _WaitingSubmit) -> None:
        """Store one submit that was passed over: who sends many such must not hold up the others."""
        try:
            async with self._apart[waiting.settling.service_id]:
                await self._store_alone(waiting)
        except asyncio.CancelledError:
            _fail(waiting, Unavailable("It is not known whether the submit was stored."))
            raise

    async def _store_alone(self, waiting: _WaitingSubmit) -> None:
        """Store one submit in a transaction of its own."""
        try:
            async with self._database.transaction() as db:
                outcome, _ = await results.settle_one(db, waiting.settling, self._recollect_window)
        except (PeerError, Unavailable) as failure:
            _fail(waiting, failure)
        except Exception as failure:
            # A fault of ours, or of a plugin: it is answered and logged, and the worker goes on.
            settling = waiting.settling
            log.exception(
                "a submit could not be stored",
                client=settling.client_id,
                service_id=settling.service_id,
                bucket=str(settling.bucket_id),
            )
            _fail(waiting, failure)
        else:
            _answer(waiting, outcome)


def _answer(waiting: _WaitingSubmit, outcome: SubmitOutcome) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(outcome)


def _fail(waiting: _WaitingSubmit, failure: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(failure)
