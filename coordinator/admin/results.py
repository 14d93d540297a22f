"""The requests `result.…`: list, export, changes, invalidate, invalidations, reinstate.  protocol.md, "result.list" """

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from coordinator.admin import Steps
from coordinator.errors import NotFound, Unavailable
from coordinator.flow.core import Core
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.release import Releases
from coordinator.flow.requeue import Requeue
from coordinator.keys import canonical
from coordinator.model import BucketId, ClaimNumber, ClientId, ServiceId
from coordinator.stats.rows import filled, made, result_row
from coordinator.store import changes, claims, clients, export, items
from coordinator.store import invalidations as store
from coordinator.wire.admin import results as wire
from coordinator.wire.paging import cursor_text, moment_or_none, number, two_numbers

REQUEUE_PATIENCE = 5.0
"""Seconds that a request goes on letting items wait again, before it is answered and the rest done behind it."""


class ResultRequests:
    """Carries out the requests `result.…`."""

    def __init__(self, core: Core, releases: Releases, plugin_runner: PluginRunner, requeue: Requeue) -> None:
        self._database = core.database
        self._key_form = core.key_form
        self._catalogue = core.catalogue
        self._releases = releases
        self._plugin_runner = plugin_runner
        self._requeue = requeue

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.ResultList: self.list,
            wire.ResultExport: self.export,
            wire.ResultChanges: self.changes,
            wire.ResultInvalidate: self.invalidate,
            wire.ResultInvalidations: self.invalidations,
            wire.ResultReinstate: self.reinstate,
        }

    async def list(self, request: wire.ResultList) -> wire.ResultPage:
        """List results of a service with their origin, in the order of their claims.

        Raises:
            NotFound, BadMessage
        """
        entry = self._catalogue.named(request.service)
        since, until = moment_or_none(request.since, "$.since"), moment_or_none(request.until, "$.until")
        after = two_numbers(request.after)
        async with self._database.connection() as db:
            found = await items.results(
                db,
                entry.service.service_id,
                after,
                request.limit,
                canonical=None if request.key is None else canonical(request.key, self._key_form),
                client=request.client_id,
                since=since,
                until=until,
            )

        last = None if found.last is None else cursor_text(*found.last)
        return wire.ResultPage(rows=await made(result_row, found.rows), next=last)

    async def export(self, request: wire.ResultExport) -> wire.ResultExportPage:
        """Send one page of all results of a service; the format is the asker's affair.

        Raises:
            NotFound, BadMessage
        """
        service = self._catalogue.named(request.service).service
        after = two_numbers(request.after)
        async with self._database.connection() as db:
            found = await export.page(
                db, service.service_id, service.name, after, request.limit, attributes=request.attributes
            )

        rows = msgspec.Raw(f"[{','.join(found.rows)}]".encode())
        return wire.ResultExportPage(rows=rows, next=None if found.last is None else cursor_text(*found.last))

    async def changes(self, request: wire.ResultChanges) -> wire.ResultChangesPage:
        """Send one page of what became of the results of a service.

        Raises:
            NotFound, BadMessage
        """
        service = self._catalogue.named(request.service).service
        after = two_numbers(request.after)
        async with self._database.transaction() as db:
            ordered = await changes.order(db)
        async with self._database.connection() as db:
            page = await changes.page(db, service.service_id, service.name, after, request.limit)

        rows = msgspec.Raw(f"[{','.join(page.rows)}]".encode())
        more = page.more or ordered == changes.ORDERED_AT_ONCE
        return wire.ResultChangesPage(rows=rows, next=cursor_text(*page.last), more=more)

    async def invalidate(self, request: wire.ResultInvalidate) -> wire.ResultsInvalidated:
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
                return wire.ResultsInvalidated(count=await store.count(db, which), invalidation_id=None)
            still_open = await store.still_open(db, which)
        await self._end(still_open)

        async with self._database.transaction() as db:
            number, marked = await store.mark(db, which, requeue=request.requeue)
            for service, found in marked.claims.items():
                await self._plugin_runner.follow(self._catalogue.by_id(service), db, "invalidate", found)
                await clients.take_back(db, found, 1)

        if request.requeue:
            with suppress(Unavailable):  # what is left of it is done later
                await self._requeue.requeue(number, REQUEUE_PATIENCE)
        return wire.ResultsInvalidated(count=marked.results, invalidation_id=number)

    async def invalidations(self, request: wire.ResultInvalidations) -> wire.InvalidationPage:
        """List the times that results were taken back, oldest first.

        Raises:
            BadMessage: `after` is none.
        """
        after = 0 if request.after is None else number(request.after)
        async with self._database.connection() as db:
            found = await store.page(db, after, request.limit)
        rows = [filled(wire.ListedInvalidation, row) for row in found]
        return wire.InvalidationPage(
            rows=rows, next=str(rows[-1].invalidation_id) if len(rows) == request.limit else None
        )

    async def reinstate(self, request: wire.ResultReinstate) -> wire.ResultsReinstated:
        """Let results count again; their items wait no more, but what is claimed meanwhile goes on.

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
                await clients.take_back(db, found, -1)

        with suppress(Unavailable):  # what waits still is checked once more
            await self._requeue.withdraw(marked.claims)
        return wire.ResultsReinstated(count=marked.results)

    def _service(self, name: str | None) -> ServiceId | None:
        return None if name is None else self._catalogue.named(name).service.service_id

    async def _end(self, still_open: Sequence[tuple[BucketId, ClaimNumber]]) -> None:
        """Take these buckets from their holders, so that nothing comes through their claims any more."""
        for bucket, claim in still_open:
            async with self._database.connection() as db:
                freed = await claims.release_claim(db, bucket, claim, claims.TAKEN, 0.0)
            self._releases.tell_lost(freed, "released")
            self._releases.wake(lost.service_id for lost in freed)
