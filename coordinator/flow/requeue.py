"""Items whose results were taken back wait again, also behind the request.  protocol.md, "result.invalidate" """

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import asyncpg
import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.release import Releases
from coordinator.flow.round_steps import RoundSteps
from coordinator.model import ClaimNumber, ServiceId
from coordinator.store import building
from coordinator.store import invalidations as store

log = structlog.get_logger()

CLAIMS_PER_TRANSACTION = 50
"""Claims whose items wait again in one transaction: some 9,000, while the builder of that service pauses."""

REQUEUE_INTERVAL = 2.0
"""Seconds between looks for what a request, or a node that crashed, has left; and spent on each of them."""


class Requeue:
    """Lets the items of an invalidation wait again, and no more once it is undone."""

    def __init__(self, core: Core, releases: Releases) -> None:
        self._database = core.database
        self._releases = releases
        self._steps = RoundSteps()

    async def run(self) -> None:
        """Finish what requests have left, until cancelled."""
        while True:
            await asyncio.sleep(REQUEUE_INTERVAL)
            try:
                async with self._database.connection() as db:
                    unfinished = await store.unfinished(db)
                await self._steps.run(
                    (f"invalidation {number}", partial(self.requeue, number, REQUEUE_INTERVAL)) for number in unfinished
                )
            except Unavailable:
                continue
            except (asyncpg.PostgresError, ExceptionGroup):
                log.exception("items could not be made to wait again; trying on")

    async def withdraw(self, claims: Mapping[ServiceId, Sequence[ClaimNumber]]) -> None:
        """Let no item of these claims wait any more, batch by batch: their results count again.

        Raises:
            Unavailable: the database is away; the items of the batches behind wait still.
        """
        loop = asyncio.get_running_loop()
        for service, found in claims.items():
            for start in range(0, len(found), CLAIMS_PER_TRANSACTION):
                begun = loop.time()
                async with self._database.transaction() as db:
                    await building.lock(db, [service])
                    await store.withdraw(db, service, found[start : start + CLAIMS_PER_TRANSACTION])

                # It works half of the time at most, as above.
                await asyncio.sleep(loop.time() - begun)

    async def requeue(self, invalidation: int, seconds: float) -> None:
        """Let items wait again, batch by batch, for at most so many seconds; `run` does the rest.

        Raises:
            Unavailable: the database is away.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            begun = loop.time()
            async with self._database.transaction() as db:
                found = await store.next_claims(db, invalidation, CLAIMS_PER_TRANSACTION)
                if found is None:
                    return
                await building.lock(db, found)
                for service, claims in found.items():
                    await store.requeue(db, service, claims)
            self._releases.wake(found)

            # It works half of the time at most, so that it does not hold up other work.
            await asyncio.sleep(loop.time() - begun)
