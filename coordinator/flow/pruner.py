"""Deletes what strangers made grow and nobody needs any more.  `deploy/README.md`, "What grows" """

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.round_steps import RoundSteps
from coordinator.store import changes, pruning
from coordinator.store.pool import Connection

log = structlog.get_logger()

PRUNE_INTERVAL = 60.0
"""Seconds between rounds.  A round looks at some thousand clients and claims each, and goes on with the next ones."""

STEPS_AT_ONCE = 20
"""Times that a statement is repeated in one round while there is more for it: 100,000 rows."""


class Pruner:
    """Prunes a round each minute; any node may, and several do no harm."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._steps = RoundSteps()
        self._last_client = ""
        self._last_claim = 0
        self._last_merged = 0

    async def run(self) -> None:
        """Prune until cancelled."""
        while True:
            try:
                await self.prune()
            except Unavailable:
                pass  # the next round does it
            except Exception:
                # What is not deleted takes room only: the node must not end for it.
                log.exception("what is old could not be deleted")
            await asyncio.sleep(PRUNE_INTERVAL)

    async def prune(self) -> None:
        """Prune one round; one step that fails stops none of the others.

        Raises:
            Unavailable: the database is away.
            Exception: as `RoundSteps.run`.
        """
        await self._steps.run(
            (
                ("sessions", partial(self._repeat, pruning.forget_sessions)),
                ("give-backs", partial(self._repeat, pruning.forget_returns)),
                ("addresses", partial(self._repeat, pruning.forget_blocks)),
                ("messages", partial(self._repeat, pruning.forget_notices)),
                ("nodes", partial(self._repeat, pruning.forget_nodes)),
                ("activity", partial(self._repeat, pruning.forget_lines)),
                ("clients", self._forget_clients),
                ("claims", self._forget_claims),
                ("new changes", self._order_changes),
                ("changes", self._merge_changes),
            )
        )

    async def _repeat(self, forget: Callable[[Connection], Awaitable[int]]) -> None:
        """Repeat a statement while there is more for it."""
        for _ in range(STEPS_AT_ONCE):
            async with self._database.connection() as db:
                if await forget(db) < pruning.AT_ONCE:
                    break

    async def _forget_clients(self) -> None:
        async with self._database.transaction() as db:
            self._last_client = await pruning.forget_clients(db, self._last_client)

    async def _forget_claims(self) -> None:
        async with self._database.connection() as db:
            self._last_claim = await pruning.forget_claims(db, self._last_claim)

    async def _order_changes(self) -> None:
        """Number new changes of results, also where nobody reads them."""
        for _ in range(STEPS_AT_ONCE):
            async with self._database.transaction() as db:
                if await changes.order(db) < changes.ORDERED_AT_ONCE:
                    break

    async def _merge_changes(self) -> None:
        """Put old changes of results together."""
        for _ in range(STEPS_AT_ONCE):
            async with self._database.transaction() as db:
                self._last_merged = await changes.merge(db, self._last_merged)
            if not self._last_merged:
                break
