"""Looking through the catalogue by key, for the items that are in some service or state there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coordinator.keys import KeyForm, canonical, is_handle, prefix_ranges
from coordinator.model import ItemState
from coordinator.store import item_places, items
from coordinator.store.item_places import PlaceInService
from coordinator.store.items import CatalogueItem
from coordinator.store.pool import Connection

ITEMS_LOOKED_AT_AT_ONCE = 500


class ItemScan(NamedTuple):
    """Which items are wanted: in this service or any, in this state or any, with a key that begins with `prefix`."""

    service: str | None
    state: ItemState | None
    prefix: str

    def takes(self, places: Sequence[PlaceInService]) -> bool:
        """Tell whether an item that is in these places is wanted."""
        if self.service is None and self.state is None:
            return True
        return any(self.service in (None, place.service) and self.state in (None, place.state) for place in places)


async def scan(
    db: Connection, form: KeyForm, wanted: ItemScan, after: str, limit: int, most: int
) -> tuple[list[tuple[CatalogueItem, Sequence[PlaceInService]]], str | None]:
    """List items by their canonical keys, from behind `after` on; returns where to go on, None at the end.

    About `most` items are looked at: there may be fewer than `limit` and yet more to come.
    """
    rows: list[tuple[CatalogueItem, Sequence[PlaceInService]]] = []
    looked_at = 0

    for prefix, only_handles in prefix_ranges(wanted.prefix, form):
        while True:
            found = await items.page(db, after, prefix, ITEMS_LOOKED_AT_AT_ONCE)
            places = await item_places.places(db, [item.item for item in found])
            for item in found:
                after = canonical(item.key, form)
                if wanted.takes(places[item.item]) and (is_handle(item.key) or not only_handles):
                    rows.append((item, places[item.item]))
                    if len(rows) == limit:
                        return rows, after

            looked_at += len(found)
            if len(found) < ITEMS_LOOKED_AT_AT_ONCE:
                break
            if looked_at >= most:
                return rows, after
    return rows, None
