"""Where items are in each of their services, and lists of items by where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, ItemState, ServiceId
from coordinator.store.items import CatalogueItem, Discovery
from coordinator.store.pool import Connection

# As the statistics count: of two copies the one that can be had counts, and none if one of them was settled.  Costs a
# look at the waiting rows and the open buckets that share a block with these items.
_PLACES = """
WITH waits AS MATERIALIZED (
    SELECT w.service_id, w.item_id, w.since, w.priority
      FROM service s JOIN waiting_item w ON w.service_id = s.service_id
     WHERE w.block = ANY (item_blocks($1))),
place AS MATERIALIZED (
    SELECT b.service_id, p.item_id, bool_or(b.state = 'ready') AS ready, min(b.priority) AS priority
      FROM open_places($1) p JOIN bucket b USING (bucket_id)
     WHERE b.state <> 'done' AND get_bit(b.settled, p.place - 1) = 0
       AND NOT EXISTS (SELECT FROM twin t WHERE t.service_id = b.service_id AND t.item_id = p.item_id
                                            AND t.settled_by IS NOT NULL)
     GROUP BY b.service_id, p.item_id)
SELECT i.item_id, s.name AS service,
       CASE WHEN w.item_id IS NOT NULL THEN 'waiting' WHEN q.item_id IS NOT NULL THEN 'quarantined'
            WHEN p.ready THEN 'ready' WHEN p.item_id IS NOT NULL THEN 'claimed' ELSE 'settled' END AS state,
       coalesce(w.since, q.since) AS since, coalesce(w.priority, p.priority) AS priority, q.attempts,
       CASE WHEN q.item_id IS NULL THEN '{}'
            ELSE ARRAY (SELECT k.ended FROM claim k WHERE k.bucket_id = q.bucket_id AND k.ended IS NOT NULL
                         ORDER BY k.claim_id LIMIT 100) END AS ended
  FROM service s
 CROSS JOIN unnest($1::bigint[]) AS i (item_id)
  JOIN enrolment e ON e.service_id = s.service_id AND e.block = item_block(i.item_id)
  LEFT JOIN waits w ON w.service_id = s.service_id AND w.item_id = i.item_id
  LEFT JOIN quarantine q ON q.service_id = s.service_id AND q.item_id = i.item_id
  LEFT JOIN place p ON p.service_id = s.service_id AND p.item_id = i.item_id
 WHERE get_bit(e.members, item_offset(i.item_id)) = 1 ORDER BY i.item_id, s.name"""


@dataclass(frozen=True, slots=True)
class PlaceInService:
    """Where an item is in one service.

    `since` and `priority` are of one that waits, `since` and `attempts` of one that was set aside; a bucket too has a
    priority.  `ended` tells how the last claims of one that was set aside ended.
    """

    service: str
    state: ItemState
    since: datetime | None
    priority: int | None
    attempts: int | None
    ended: tuple[str, ...]


async def places(db: Connection, items: Sequence[ItemId]) -> dict[ItemId, list[PlaceInService]]:
    """Return for each of these items where it is in each of its services, by name."""
    found: dict[ItemId, list[PlaceInService]] = {item: [] for item in items}
    for row in await db.fetch(_PLACES, list(items)):
        place = PlaceInService(
            row["service"], row["state"], row["since"], row["priority"], row["attempts"], tuple(row["ended"])
        )
        found[ItemId(row["item_id"])].append(place)
    return found


_ITEMS = """
SELECT i.item_id, i.key, i.attributes, i.found_with, i.found_by, s.name AS service, k.client_id
  FROM unnest($1::bigint[]) WITH ORDINALITY AS n (item_id, place)
  JOIN item i USING (item_id)
  LEFT JOIN claim k ON k.claim_id = i.found_by LEFT JOIN service s USING (service_id)
 ORDER BY n.place"""


@dataclass(frozen=True, slots=True)
class PlacedItem:
    """An item, the result that showed it if nobody added it, and where it is in each service."""

    item: CatalogueItem
    found: Discovery | None
    places: Sequence[PlaceInService]


async def of_ids(db: Connection, items: Sequence[ItemId]) -> list[PlacedItem]:
    """Load items in the order given, without those that are not in the catalogue."""
    where = await places(db, items)
    return [
        PlacedItem(
            CatalogueItem(ItemId(row["item_id"]), row["key"], row["attributes"]), _found(row), where[row["item_id"]]
        )
        for row in await db.fetch(_ITEMS, list(items))
    ]


def _found(row: Any) -> Discovery | None:
    if row["service"] is None:
        return None
    return Discovery(
        ItemId(row["found_with"]), row["service"], ClientId(row["client_id"]), ClaimNumber(row["found_by"])
    )


# Lists of ids, in an order of which each page begins behind the last one.

_ID_OF_KEY = "SELECT item_id FROM item WHERE coalesce(canonical, key) = $1"

_OF_BUCKET = """
SELECT n.item_id FROM bucket_items c CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS n (item_id, place)
 WHERE c.bucket_id = $1 AND n.place > $2 ORDER BY n.place LIMIT $3"""

_QUARANTINED = """
SELECT item_id FROM quarantine WHERE service_id = $1 AND item_id > $2 ORDER BY item_id LIMIT $3"""


async def id_of_key(db: Connection, canonical: str) -> ItemId | None:
    """Find the item of a canonical key."""
    item = await db.fetchval(_ID_OF_KEY, canonical)
    return None if item is None else ItemId(item)


async def of_bucket(db: Connection, bucket: BucketId, after: int, limit: int) -> list[ItemId]:
    """List the items of a bucket, settled or not, in its order, without the first `after`."""
    return [ItemId(row["item_id"]) for row in await db.fetch(_OF_BUCKET, bucket, after, limit)]


async def quarantined(db: Connection, service: ServiceId, after: int, limit: int) -> list[ItemId]:
    """List the items of a service that were set aside, by number, from behind `after` on."""
    return [ItemId(row["item_id"]) for row in await db.fetch(_QUARANTINED, service, after, limit)]
