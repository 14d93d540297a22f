"""Services with their plugins, states and settings, and the way of a new service through the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from coordinator.model import ServiceId, ServiceState
from coordinator.store.items import CatalogueItem
from coordinator.store.pool import Connection

_SERVICES = """
SELECT service_id, name, plugin, title, state, settings,
       EXISTS (SELECT FROM service_fill f WHERE f.service_id = s.service_id) AND state <> 'revoked' AS filling
  FROM service s ORDER BY service_id"""

_ADD = """
INSERT INTO service (name, plugin, title, settings) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO NOTHING RETURNING service_id"""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """A service as it is stored; `settings` are only those that differ from the defaults."""

    service_id: ServiceId
    name: str
    plugin: str
    title: str
    state: ServiceState
    settings: dict[str, Any]
    filling: bool = field(default=False, compare=False)
    """Whether it has not come through the catalogue yet."""


async def load(db: Connection) -> list[ServiceRecord]:
    """Load all services, revoked ones too."""
    return [ServiceRecord(**row) for row in await db.fetch(_SERVICES)]


async def add(db: Connection, name: str, plugin: str, title: str, settings: Mapping[str, Any]) -> ServiceId | None:
    """Add a service; None if the name is taken."""
    found = await db.fetchval(_ADD, name, plugin, title, orjson.dumps(settings).decode())
    return None if found is None else ServiceId(found)


_LOCK = "SELECT service_id, name, plugin, title, state, settings FROM service WHERE name = $1 FOR NO KEY UPDATE"

_CONFIGURE = "UPDATE service SET settings = $2 WHERE service_id = $1"

_SET_STATE = "UPDATE service SET state = $2 WHERE service_id = $1"


async def lock(db: Connection, name: str) -> ServiceRecord | None:
    """Lock a service against other changes until the transaction ends; None if there is none."""
    row = await db.fetchrow(_LOCK, name)
    return None if row is None else ServiceRecord(**row)


async def configure(db: Connection, service: ServiceId, settings: Mapping[str, Any]) -> None:
    """Replace the settings that differ from the defaults."""
    await db.execute(_CONFIGURE, service, orjson.dumps(settings).decode())


async def set_state(db: Connection, service: ServiceId, state: ServiceState) -> None:
    """Pause, resume, revoke or restore."""
    await db.execute(_SET_STATE, service, state)


# The catalogue's lock: alone for whoever adds a service, shared by whoever adds items (`adding.add`).  So each item is
# either in the catalogue when the service is added, and is found by the fill, or its adder knows of the service.
_LOCK_CATALOGUE = "SELECT pg_advisory_xact_lock(hashtext('coordinator.catalogue'))"


async def lock_catalogue(db: Connection) -> None:
    """Take the catalogue's lock until the transaction ends."""
    await db.execute(_LOCK_CATALOGUE)


_BEGIN_FILL = """
INSERT INTO service_fill (service_id, upto)
SELECT $1, max(item_id) FROM item HAVING max(item_id) IS NOT NULL"""

_NEXT = """
SELECT after, upto FROM service_fill WHERE service_id = $1 FOR UPDATE SKIP LOCKED"""

# Locked against deletion until they have joined, as when items are added.
_BATCH = """
SELECT item_id, key, attributes FROM item WHERE item_id > $1 AND item_id <= $2
 ORDER BY item_id LIMIT $3 FOR KEY SHARE"""

_ADVANCE = "UPDATE service_fill SET after = $2 WHERE service_id = $1"

_FILLED = "DELETE FROM service_fill WHERE service_id = $1"


async def begin_fill(db: Connection, service: ServiceId) -> None:
    """Note that a service is to be offered all items that are in the catalogue now."""
    await db.execute(_BEGIN_FILL, service)


async def next_candidates(db: Connection, service: ServiceId, limit: int) -> list[CatalogueItem] | None:
    """Take the next items to offer; nobody else gets them until the transaction ends.  None: another node is at it.

    None also if the fill is over already; an empty list if it is over now.
    """
    place = await db.fetchrow(_NEXT, service)
    if place is None:
        return None

    found = [
        CatalogueItem(row["item_id"], row["key"], row["attributes"])
        for row in await db.fetch(_BATCH, place["after"], place["upto"], limit)
    ]

    if found:
        await db.execute(_ADVANCE, service, found[-1].item)
    else:
        await db.execute(_FILLED, service)
    return found
