"""Results are taken back, and given back.  protocol.md, "result.invalidate" """

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import asyncpg
import structlog

from coordinator.errors import NotFound, Unavailable
from coordinator.flow.core import Core
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.release import Releases
from coordinator.flow.rows import Fields, moment_or_none
from coordinator.model import BucketId, ClaimNumber, ClientId, ServiceId
from coordinator.store import building, claims, clients
from coordinator.store import invalidations as store
from coordinator.wire import admin as wire

log = structlog.get_logger()

CLAIMS = 50
"""Claims whose items wait again in one transaction: some 9,000, while the builder of that service pauses."""

PATIENCE = 5.0
"""Seconds that a request goes on letting items wait again, before it is answered and the rest done behind it."""

LOOK = 2.0
"""Seconds between looks for what a request, or a node that crashed, has left."""


class Undo:
    """The steps behind `result.invalidate` and `result.reinstate`."""

    def __init__(self, core: Core, releases: Releases, plugin_runner: PluginRunner) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._releases = releases
        self._signals = core.signals
        self._plugin_runner = plugin_runner

    async def invalidate(self, request: wire.ResultInvalidate) -> Fields:
        """Take back what a client, or everyone, found out in a service or in all, in some time or ever.

        Raises:
            NotFound: there is no such service or client.
            BadMessage: a time is none.
            Internal: a plugin has failed; nothing was taken back.
        """
        which = store.ResultFilter(
            None if request.client_id is None else ClientId(request.client_id),
            self._service(request.service),
            moment_or_none(request.since, "$.since"),
            moment_or_none(request.until, "$.until"),
        )
        async with self._database.connection() as db:
            if which.client is not None and await clients.find(db, which.client) is None:
                raise NotFound(f"There is no client {request.client_id!r}.")
            if request.dry_run:
                return {"count": await store.count(db, which), "invalidation_id": None}
            still_open = await store.still_open(db, which)
        await self._end(still_open)
        async with self._database.transaction() as db:
            number, marked = await store.mark(db, which, requeue=request.requeue)
            for service, found in marked.claims.items():
                await self._plugin_runner.follow(self._catalogue.by_id(service), db, "invalidate", found)
        if request.requeue:
            with suppress(Unavailable):  # what is left of it is done later
                await self._requeue(number, PATIENCE)
        return {"count": marked.results, "invalidation_id": number}

    async def reinstate(self, request: wire.ResultReinstate) -> Fields:
        """Let results count again; items that wait again since are checked once more.

        Raises:
            NotFound: there is no such invalidation, or it is undone already.
            Internal: a plugin has failed; nothing was given back.
        """
        async with self._database.transaction() as db:
            marked = await store.unmark(db, request.invalidation_id)
            if marked is None:
                raise NotFound("There is no such invalidation, or it is undone already.")
            for service, found in marked.claims.items():
                await self._plugin_runner.follow(self._catalogue.by_id(service), db, "reinstate", found)
        return {"count": marked.results}

    def _service(self, name: str | None) -> ServiceId | None:
        if name is None:
            return None
        return self._catalogue.named(name).service.service_id

    async def _end(self, still_open: Sequence[tuple[BucketId, ClaimNumber]]) -> None:
        """Take these buckets from their holders, so that nothing comes through their claims any more."""
        for bucket, claim in still_open:
            async with self._database.connection() as db:
                freed = await claims.release_claim(db, bucket, claim, claims.TAKEN, 0.0)
            self._releases.tell_lost(freed, "released")
            self._releases.wake(one.service_id for one in freed)

    # Waiting again

    async def run(self) -> None:
        """Finish what requests have left, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                async with self._database.connection() as db:
                    unfinished = await store.unfinished(db)
                for number in unfinished:
                    await self._requeue(number, LOOK)
            except Unavailable:
                continue
            except asyncpg.PostgresError:
                log.exception("items could not be made to wait again; trying on")

    async def _requeue(self, number: int, patience: float) -> None:
        """Let items wait again, batch by batch, for so many seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        while loop.time() < end:
            begun = loop.time()
            async with self._database.transaction() as db:
                found = await store.next_claims(db, number, CLAIMS)
                if found is None:
                    return
                await building.lock(db, found)
                for some in found.values():
                    await store.requeue(db, some)
            self._releases.wake(found)
            # Half of the time belongs to the others.
            await asyncio.sleep(loop.time() - begun)
