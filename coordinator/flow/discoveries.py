"""Keys that results show, and that nobody has added: they come into the catalogue with the result.

Where the setting `discover` of a service is on, what its plugin finds in a submit is added in the transaction that
stores it, and waits in the services that take all items.  protocol.md, "Items"
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.keys import compared, read_key
from coordinator.model import ClaimNumber, ItemId, ServiceId
from coordinator.services import DecodedResults, Item
from coordinator.store import adding
from coordinator.store.adding import FoundItem
from coordinator.store.pool import Connection
from coordinator.store.results import PluginStore


class Discoveries:
    """Adds the items that submits show."""

    def __init__(self, core: Core, plugin_runner: PluginRunner) -> None:
        self._catalogue = core.catalogue
        self._key_form = core.key_form
        self._signals = core.signals
        self._plugin_runner = plugin_runner

    def of(
        self, entry: Entry, rows: DecodedResults, items: Mapping[ItemId, Item], claim: ClaimNumber
    ) -> SubmitDiscovery | None:
        """Return what there is to find in a submit; None if its service does not look."""
        if not entry.plugin.discovers or entry.service.settings.discover == "off":
            return None
        return SubmitDiscovery(self, entry, rows, items, claim)

    async def find(self, entry: Entry, looked_at: list[tuple[Item, object]]) -> dict[str, FoundItem]:
        """Return the keys that results show, each once, by canonical key."""
        found: dict[str, FoundItem] = {}
        for item, keys in await self._plugin_runner.discover(entry, looked_at):
            for written in keys:
                try:
                    key = read_key(written, self._key_form)
                except ValueError:
                    continue  # it is no key, so there is nothing to add
                found.setdefault(compared(key), (*key, item))
        return found

    async def add(self, db: Connection, found: Mapping[str, FoundItem], claim: ClaimNumber) -> set[ServiceId]:
        """Add those that are new, in this transaction; returns the services in which they wait."""
        new = await adding.add_found(db, [row for _, row in sorted(found.items())], claim)
        joined: set[ServiceId] = set()
        if not new:
            return joined

        await self._catalogue.load(db)  # while items are added no service is, but one may have been added before
        offered = [Item(item, key, {}) for key, item in new.items()]
        for entry in sorted(self._catalogue.enrolling(), key=lambda entry: entry.service.service_id):
            chosen = await self._plugin_runner.select(entry, offered)
            if chosen and await adding.join(db, entry.service.service_id, chosen, 100, 0.0):
                joined.add(entry.service.service_id)
        return joined

    def tell(self, joined: Collection[ServiceId]) -> None:
        """Tell all nodes, after the commit, that items wait in these services."""
        for service in joined:
            self._signals.work(service, waiting=True)


class SubmitDiscovery:
    """The items that one submit shows."""

    def __init__(
        self,
        discoveries: Discoveries,
        entry: Entry,
        rows: DecodedResults,
        items: Mapping[ItemId, Item],
        claim: ClaimNumber,
    ) -> None:
        self._discoveries = discoveries
        self._entry = entry
        self._rows = rows
        self._items = items
        self._claim = claim
        self._joined: set[ServiceId] = set()

    def behind(self, keep: PluginStore | None) -> PluginStore:
        """Return the step that stores what the plugin keeps of the submit, and then adds what is found in it."""

        async def store(db: Connection, kept: Collection[ItemId], at: datetime) -> bool:
            new = keep is not None and await keep(db, kept, at)
            looked_at = [
                (self._items[item], result)
                for item, result in self._rows.decoded
                if item in kept and item in self._items
            ]
            found = await self._discoveries.find(self._entry, looked_at)
            if found:
                self._joined = await self._discoveries.add(db, found, self._claim)
            return new or bool(self._joined)

        return store

    def tell(self) -> None:
        """Tell all nodes, after the commit."""
        self._discoveries.tell(self._joined)
