"""The requests `item.…`: add, prioritize, delete, retry, and what is known of items.  protocol.md, "item.add" """

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from coordinator.admin import Steps
from coordinator.admin.new_items import NewItem, read_items
from coordinator.errors import NotFound
from coordinator.flow.bucket_builder import BucketBuilder, BuildReason, frame, head_start, new_bucket_id, shuffled_parts
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.release import Releases
from coordinator.model import ItemId, ItemState, ServiceId, ServiceSettings, WaitingItem
from coordinator.services import Item
from coordinator.stats.rows import Columns, filled, result_row
from coordinator.store import building, item_changes
from coordinator.store import items as store
from coordinator.store.pool import Connection
from coordinator.wire.admin import items as wire
from coordinator.wire.paging import cursor, cursor_text, moment_of, number, time_text, two_numbers


class ItemRequests:
    """Carries out the requests `item.…`."""

    def __init__(
        self, core: Core, grant: Grant, builder: BucketBuilder, releases: Releases, plugin_runner: PluginRunner
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._grant = grant
        self._builder = builder
        self._releases = releases
        self._signals = core.signals
        self._plugin_runner = plugin_runner

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.ItemAdd: self.add,
            wire.ItemPrioritize: self.prioritize,
            wire.ItemDelete: self.delete,
            wire.ItemWaiting: self.waiting,
            wire.ItemShow: self.show,
            wire.ItemQuarantined: self.quarantined,
            wire.ItemRetry: self.retry,
        }

    # Adding

    async def add(self, request: wire.ItemAdd) -> wire.ItemsAdded:
        """Add items; good ones are stored, bad ones are named.

        Raises:
            UnknownService, ServiceRevoked: one of `services`.
        """
        good, refused = read_items(request.items)
        new, known, joined = await self._store(request, good)

        for service in joined:
            if request.priority < 100:
                self._builder.forget(service)
                await self._builder.build(self._catalogue.by_id(service), BuildReason.AHEAD, wait_for_lock=True)
            self._signals.work(service, waiting=request.priority >= 100)
        await self._grant.served(joined)

        if good:  # known ones may have become so just now, and not be on disk
            await self._database.flush()
        return wire.ItemsAdded(added=new, known=known, refused=refused)

    async def _store(self, request: wire.ItemAdd, good: Sequence[NewItem]) -> tuple[int, int, set[ServiceId]]:
        """Return how many are new and known, and where any of them wait now.

        All in one transaction if a plugin is asked, or the catalogue which services there are.  Else new items take
        one statement, and known ones a transaction behind it.
        """
        entries, named = self._entries(request.services), request.services is not None
        one_transaction = not named or any(entry.plugin.selects for entry in entries)
        waits: dict[ServiceId, float] = {}
        if named:
            waits = {
                entry.service.service_id: _head_start(request, entry) for entry in entries if not entry.plugin.selects
            }
        rows = [(item.key, msgspec.json.encode(item.attributes).decode()) for item in good]

        async with AsyncExitStack() as stack:
            db = await stack.enter_async_context(self._database.connection())
            if one_transaction:
                await stack.enter_async_context(db.transaction())
            new = await store.add(db, rows, waits, request.priority)
            joined = set(waits) if new else set()
            if not one_transaction and len(new) == len(rows):
                return len(new), 0, joined

            try:
                if not one_transaction:
                    await stack.enter_async_context(db.transaction())
                have = await store.known(db, [item.key for item in good])
                if not named:  # no service is added now; which of them does this node not know yet?
                    await self._catalogue.load(db)
                    entries = self._entries(None)

                added = set(new)
                old = [item for item in have if item not in added]
                for entry in sorted(entries, key=lambda entry: entry.service.service_id):
                    service, start = entry.service.service_id, _head_start(request, entry)
                    chosen = old if service in waits else await self._chosen(db, entry, have)
                    if chosen and await store.join(db, service, chosen, request.priority, start):
                        joined.add(service)
            except BaseException:
                for service in joined:  # what is new waits there, whatever becomes of the rest
                    self._signals.work(service, waiting=True)
                raise
        return len(new), len(old), joined

    def _entries(self, names: Sequence[str] | None) -> list[Entry]:
        if names is None:
            return [entry for entry in self._catalogue.all() if entry.service.state == "active"]
        return [self._catalogue.living(name) for name in dict.fromkeys(names)]

    async def _chosen(self, db: Connection, entry: Entry, ids: list[ItemId]) -> list[ItemId]:
        """Return those that concern the service, by the catalogue's attributes."""
        if not entry.plugin.selects:
            return ids
        found = await item_changes.by_ids(db, ids)
        offered = [Item(known.item, known.key, known.attributes) for known in found]
        return await self._plugin_runner.select(entry, offered)

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
            found = await item_changes.by_keys(db, request.keys)
            start = head_start(request.priority, settings.max_head_start)
            taken = await item_changes.take_for_priority(
                db, service, [known.item for known in found], request.priority, start
            )
            urgent = _urgent_buckets(taken, service, settings, request.priority)
            if urgent:
                await building.put_buckets(db, urgent)
                places = [(bucket.bucket_id, bucket.items) for bucket in urgent]
                await item_changes.note_twins(db, service, places, taken)

        self._signals.work(service)
        await self._grant.served([service])
        await self._database.flush()
        unknown = _missing(request.keys, {known.key for known in found})
        return wire.ItemsPrioritized(prioritized=len(found), unknown=unknown)

    async def delete(self, request: wire.ItemDelete) -> wire.ItemsDeleted:
        """Remove items, their results and their places in open buckets."""
        services = [entry.service.service_id for entry in self._catalogue.all()]
        async with self._database.transaction() as db:
            await building.lock(db, services)
            found = await item_changes.by_keys(db, request.keys)
            ids = [known.item for known in found]
            ended = await item_changes.delete(db, ids)
            # After it, since it has waited for the submits that were under way.
            for entry in self._catalogue.all():
                await self._plugin_runner.forget(entry, db, ids)

        self._releases.tell_lost(ended, "done")
        unknown = _missing(request.keys, {known.key for known in found})
        return wire.ItemsDeleted(deleted=len(found), unknown=unknown)

    async def retry(self, request: wire.ItemRetry) -> wire.ItemsRetried:
        """Let quarantined items wait again.

        Raises:
            NotFound
        """
        service = self._catalogue.named(request.service).service.service_id
        async with self._database.transaction() as db:
            await building.lock(db, [service])
            retried = await item_changes.retry(db, service, request.keys)
        self._signals.work(service)
        return wire.ItemsRetried(retried=len(retried), unknown=_missing(request.keys, retried))

    # Looking

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
            story = await store.show(db, request.key)
        if story is None:
            raise NotFound(f"There is no item {request.key!r}.")
        return wire.ItemShown(
            item=story.item,
            key=story.key,
            attributes=story.attributes,
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


def _head_start(request: wire.ItemAdd, entry: Entry) -> float:
    return head_start(request.priority, entry.service.settings.max_head_start)


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


def _missing(keys: Sequence[str], known: set[str]) -> list[str]:
    """Return the keys that are not known, each once, in the order of the request."""
    return [key for key in dict.fromkeys(keys) if key not in known]


def _waiting_row(item: WaitingItem, service: str) -> wire.ListedWaitingItem:
    return wire.ListedWaitingItem(
        service=service, item=item.item_id, key=item.key, priority=item.priority, since=time_text(item.since)
    )


def _in_service(story: store.ItemStory, service: str, state: ItemState) -> wire.ItemInService:
    results = [result_row(row) for row in story.results if row.service == service]
    return wire.ItemInService(service=service, state=state, results=results)


def _quarantined_row(row: Columns) -> wire.ListedQuarantinedItem:
    return filled(wire.ListedQuarantinedItem, row)
