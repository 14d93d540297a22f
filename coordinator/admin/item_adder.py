"""The request `item.add`: new items go into the catalogue, and new and known ones into services."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from coordinator.admin.new_items import read_items
from coordinator.flow.bucket_builder import BucketBuilder, BuildReason, head_start
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.keys import compared
from coordinator.model import ItemId, ServiceId
from coordinator.services import Item
from coordinator.store import adding, item_changes
from coordinator.store.item_copy import NewItem
from coordinator.store.pool import Connection
from coordinator.wire.admin.items import ItemAdd, ItemsAdded

MANY = 256
"""Items from which on it pays to believe that all are new: half the cost if they are, half as much again if not."""


class ItemAdder:
    """Adds the items of `item.add`."""

    def __init__(self, core: Core, grant: Grant, builder: BucketBuilder, plugin_runner: PluginRunner) -> None:
        self._database = core.database
        self._key_form = core.key_form
        self._catalogue = core.catalogue
        self._grant = grant
        self._builder = builder
        self._signals = core.signals
        self._plugin_runner = plugin_runner
        self._some_known = False
        """Whether some of the last many items were known: then the next ones are not believed to be new."""

    async def add(self, request: ItemAdd) -> ItemsAdded:
        """Add items; good ones are stored, bad ones are named.

        Raises:
            BadMessage: an item nests too deep.
            UnknownService, ServiceRevoked: one of `services`.
        """
        good, refused = await read_items(request.items, self._key_form)
        rows = [item for _, item in sorted(good.items())]
        new, known, joined = await self._store(request, rows)

        for service in joined:
            if request.priority < 100:
                self._builder.forget(service)
                await self._builder.build(self._catalogue.by_id(service), BuildReason.AHEAD, wait_for_lock=True)
            self._signals.work(service, waiting=request.priority >= 100)
        await self._grant.served(joined)

        if good:  # known ones may have become so just now, and not be on disk
            await self._database.flush()
        return ItemsAdded(added=new, known=known, refused=refused)

    async def _store(self, request: ItemAdd, rows: Sequence[NewItem]) -> tuple[int, int, set[ServiceId]]:
        """Return how many are new and known, and where any of them wait now."""
        many = len(rows) >= MANY
        if many and not self._some_known:
            try:
                return len(rows), 0, await self._store_new(request, rows)
            except adding.KeysKnown:
                pass

        new, known, joined = await self._store_any(request, rows)
        if many:
            self._some_known = known > 0
        return new, known, joined

    async def _store_new(self, request: ItemAdd, rows: Sequence[NewItem]) -> set[ServiceId]:
        """Store items that are all new, sorted by canonical key, in one transaction.

        Raises:
            KeysKnown: they are not; nothing is stored.
        """
        entries, joined = self._entries(request.services), set()
        async with self._database.transaction() as db:
            new = await adding.add_new(db, rows)
            for entry in await self._services(db, request, entries):
                service, chosen = entry.service.service_id, new
                if entry.plugin.selects:
                    offered = [
                        Item(item, key, msgspec.json.decode(text))
                        for item, (key, _, text) in zip(new, rows, strict=True)
                    ]
                    chosen = await self._plugin_runner.select(entry, offered)
                if chosen:
                    await adding.join_new(db, service, chosen, request.priority, _head_start(request, entry))
                    joined.add(service)
        return joined

    async def _store_any(self, request: ItemAdd, rows: Sequence[NewItem]) -> tuple[int, int, set[ServiceId]]:
        """Store items of which some may be known.

        All in one transaction if a plugin is asked, or the catalogue which services there are.  Else new items take
        one statement, and known ones a transaction behind it.
        """
        entries = self._entries(request.services)
        one_transaction = request.services is None or any(entry.plugin.selects for entry in entries)
        waits: dict[ServiceId, float] = {}
        if not one_transaction:
            waits = {entry.service.service_id: _head_start(request, entry) for entry in entries}

        async with AsyncExitStack() as stack:
            db = await stack.enter_async_context(self._database.connection())
            if one_transaction:
                await stack.enter_async_context(db.transaction())
            new = await adding.add(db, rows, waits, request.priority)
            joined = set(waits) if new else set()
            if not one_transaction and len(new) == len(rows):
                return len(new), 0, joined

            try:
                if not one_transaction:
                    await stack.enter_async_context(db.transaction())
                old = await adding.known(db, [compared(row[:2]) for row in rows if row[0] not in new])
                for entry in await self._services(db, request, entries):
                    service, start = entry.service.service_id, _head_start(request, entry)
                    chosen = old if service in waits else await self._chosen(db, entry, [*new.values(), *old])
                    if chosen and await adding.join(db, service, chosen, request.priority, start):
                        joined.add(service)
            except BaseException:
                for service in joined:  # what is new waits there, whatever becomes of the rest
                    self._signals.work(service, waiting=True)
                raise
        return len(new), len(old), joined

    async def _services(self, db: Connection, request: ItemAdd, entries: list[Entry]) -> list[Entry]:
        """The services that the items are for, in the order in which they are joined.

        While items are added no service is, but this node may not know yet of one that was added before.
        """
        if request.services is None:
            await self._catalogue.load(db)
            entries = self._entries(None)
        return sorted(entries, key=lambda entry: entry.service.service_id)

    def _entries(self, names: Sequence[str] | None) -> list[Entry]:
        if names is None:
            return self._catalogue.enrolling()
        return [self._catalogue.living(name) for name in dict.fromkeys(names)]

    async def _chosen(self, db: Connection, entry: Entry, ids: list[ItemId]) -> list[ItemId]:
        """Return those that concern the service, by the catalogue's attributes."""
        if not entry.plugin.selects:
            return ids
        found = await item_changes.by_ids(db, ids)
        offered = [Item(known.item, known.key, known.attributes) for known in found]
        return await self._plugin_runner.select(entry, offered)


def _head_start(request: ItemAdd, entry: Entry) -> float:
    return head_start(request.priority, entry.service.settings.max_head_start)
