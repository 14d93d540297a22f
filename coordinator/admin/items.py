"""The requests `item.…`: add, prioritize, delete, retry, and what is known of items.  protocol.md, "item.add" """

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

from coordinator.admin import Steps
from coordinator.admin.item_adder import ItemAdder
from coordinator.errors import NotFound
from coordinator.flow.bucket_builder import frame, head_start, new_bucket_id, shuffled_parts
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.release import Releases
from coordinator.keys import canonical
from coordinator.model import ItemState, ServiceId, ServiceSettings, WaitingItem
from coordinator.stats.item_scan import ItemScan, scan
from coordinator.stats.rows import Columns, filled, result_row
from coordinator.store import building, item_changes, item_places
from coordinator.store import items as store
from coordinator.wire.admin import items as wire
from coordinator.wire.frames import Discovered
from coordinator.wire.paging import cursor, cursor_text, moment_of, number, time_text, two_numbers

MOST_ITEMS_LOOKED_AT = 10_000
"""Items that one `item.list` looks at: few may have the state that is asked for."""


class ItemRequests:
    """Carries out the requests `item.…`."""

    def __init__(
        self, core: Core, grant: Grant, adder: ItemAdder, releases: Releases, plugin_runner: PluginRunner
    ) -> None:
        self._database = core.database
        self._key_form = core.key_form
        self._catalogue = core.catalogue
        self._grant = grant
        self._adder = adder
        self._releases = releases
        self._signals = core.signals
        self._plugin_runner = plugin_runner

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.ItemAdd: self.add,
            wire.ItemPrioritize: self.prioritize,
            wire.ItemDelete: self.delete,
            wire.ItemList: self.list,
            wire.ItemWaiting: self.waiting,
            wire.ItemShow: self.show,
            wire.ItemQuarantined: self.quarantined,
            wire.ItemRetry: self.retry,
        }

    async def add(self, request: wire.ItemAdd) -> wire.ItemsAdded:
        """Add items; good ones are stored, bad ones are named.

        Raises:
            BadMessage, UnknownService, ServiceRevoked
        """
        return await self._adder.add(request)

    # Out of turn

    async def prioritize(self, request: wire.ItemPrioritize) -> wire.ItemsPrioritized:
        """Put items into buckets at once, ahead of those of higher numbers.

        Raises:
            NotFound
        """
        entry = self._catalogue.named(request.service)
        settings, service = entry.service.settings, entry.service.service_id
        async with self._database.transaction() as db:
            await building.lock(db, [service])
            found = await item_changes.by_keys(db, self._canonical(request.keys))
            start = head_start(request.priority, settings.max_head_start)
            taken = await item_changes.take_for_priority(db, service, list(found.values()), request.priority, start)
            urgent = _urgent_buckets(taken, service, settings, request.priority)
            if urgent:
                await building.put_buckets(db, urgent)
                places = [(bucket.bucket_id, bucket.items) for bucket in urgent]
                await item_changes.note_twins(db, service, places, taken)

        self._signals.work(service)
        await self._grant.served([service])
        await self._database.flush()
        return wire.ItemsPrioritized(prioritized=len(found), unknown=self._unknown(request.keys, found))

    async def delete(self, request: wire.ItemDelete) -> wire.ItemsDeleted:
        """Remove items, their results and their places in open buckets."""
        services = [entry.service.service_id for entry in self._catalogue.all()]
        async with self._database.transaction() as db:
            await building.lock(db, services)
            found = await item_changes.by_keys(db, self._canonical(request.keys))
            ids = list(found.values())
            ended = await item_changes.delete(db, ids)
            # After it, since it has waited for the submits that were under way.
            for entry in self._catalogue.all():
                await self._plugin_runner.forget(entry, db, ids)

        self._releases.tell_lost(ended, "done")
        return wire.ItemsDeleted(deleted=len(found), unknown=self._unknown(request.keys, found))

    async def retry(self, request: wire.ItemRetry) -> wire.ItemsRetried:
        """Let quarantined items wait again.

        Raises:
            NotFound
        """
        service = self._catalogue.named(request.service).service.service_id
        async with self._database.transaction() as db:
            await building.lock(db, [service])
            retried = await item_changes.retry(db, service, self._canonical(request.keys))
        self._signals.work(service)
        return wire.ItemsRetried(retried=len(retried), unknown=self._unknown(request.keys, retried))

    def _canonical(self, keys: Sequence[str]) -> list[str]:
        """Return the canonical forms of keys that are looked for."""
        return [canonical(key, self._key_form) for key in keys]

    def _unknown(self, keys: Sequence[str], found: Collection[str]) -> list[str]:
        """Return the keys whose canonical form is not found, each once, in the order of the request."""
        return [key for key in dict.fromkeys(keys) if canonical(key, self._key_form) not in found]

    # Looking

    async def list(self, request: wire.ItemList) -> wire.ItemPage:
        """List items by their canonical keys, a bounded number of which is looked at.

        Raises:
            NotFound
        """
        if request.service is not None:
            self._catalogue.named(request.service)
        wanted = ItemScan(request.service, request.state, request.prefix or "")
        async with self._database.connection() as db:
            found, last = await scan(
                db, self._key_form, wanted, request.after or "", request.limit, MOST_ITEMS_LOOKED_AT
            )
        return wire.ItemPage(rows=[_listed(item, places) for item, places in found], next=last)

    async def waiting(self, request: wire.ItemWaiting) -> wire.WaitingPage:
        """List items that are not in a bucket, in rank order.

        Raises:
            NotFound, BadMessage
        """
        entry = self._catalogue.named(request.service)
        after = building.QUEUE_START
        if request.after is not None:
            moment, item = cursor(request.after, 2)
            after = (moment_of(moment, "$.after"), number(item))
        async with self._database.connection() as db:
            found = await store.waiting(db, entry.service.service_id, after, request.limit)

        last = cursor_text(found[-1].rank_at.isoformat(), found[-1].item_id) if len(found) == request.limit else None
        return wire.WaitingPage(rows=[_waiting_row(item, request.service) for item in found], next=last)

    async def show(self, request: wire.ItemShow) -> wire.ItemShown:
        """Show one item in every service, with the origin of each result.

        Raises:
            NotFound
        """
        async with self._database.connection() as db:
            story = await store.show(db, canonical(request.key, self._key_form))
        if story is None:
            raise NotFound(f"There is no item {request.key!r}.")
        return wire.ItemShown(
            item=story.item,
            key=story.key,
            attributes=story.attributes,
            found=None if story.found is None else Discovered(**asdict(story.found)),
            services=[_in_service(story, service, state) for service, state in story.states],
        )

    async def quarantined(self, request: wire.ItemQuarantined) -> wire.QuarantinedPage:
        """List items that broke clients.

        Raises:
            NotFound, BadMessage
        """
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        after = two_numbers(request.after)
        async with self._database.connection() as db:
            found = await item_changes.quarantined(db, service, after, request.limit)

        last = cursor_text(found[-1]["service_id"], found[-1]["item"]) if len(found) == request.limit else None
        return wire.QuarantinedPage(rows=[_quarantined_row(row) for row in found], next=last)


def _urgent_buckets(
    taken: Sequence[item_changes.PrioritisedItem], service: ServiceId, settings: ServiceSettings, priority: int
) -> list[building.NewBucket]:
    return [
        building.NewBucket(
            new_bucket_id(),
            service,
            min(item.rank_at for item in part),
            min(item.since for item in part),
            priority,
            [item.item_id for item in part],
            frame(item.fragment for item in part),
        )
        for part in shuffled_parts(taken, settings.bucket_size)
    ]


def _listed(item: store.CatalogueItem, places: Sequence[item_places.PlaceInService]) -> wire.ListedItem:
    services = [wire.ItemInList(service=place.service, state=place.state) for place in places]
    return wire.ListedItem(item=item.item, key=item.key, attributes=item.attributes, services=services)


def _waiting_row(item: WaitingItem, service: str) -> wire.ListedWaitingItem:
    return wire.ListedWaitingItem(
        service=service, item=item.item_id, key=item.key, priority=item.priority, since=time_text(item.since)
    )


def _in_service(story: store.ItemStory, service: str, state: ItemState) -> wire.ItemInService:
    results = [result_row(row) for row in story.results if row.service == service]
    return wire.ItemInService(service=service, state=state, results=results)


def _quarantined_row(row: Columns) -> wire.ListedQuarantinedItem:
    return filled(wire.ListedQuarantinedItem, row)
