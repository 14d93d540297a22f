"""Services: plugin, state and settings; and how far a new one has come through the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from coordinator.model import ItemId, ServiceId, ServiceState
from coordinator.store.pool import Connection

_ALL = "SELECT service_id, name, plugin, title, state, settings FROM service ORDER BY service_id"

_ADD = """
INSERT INTO service (name, plugin, title, settings) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO NOTHING RETURNING service_id"""


@dataclass(frozen=True, slots=True)
class Row:
    """A service as it is stored; `settings` are only those that differ from the defaults."""

    service_id: ServiceId
    name: str
    plugin: str
    title: str
    state: ServiceState
    settings: dict[str, Any]


async def load(db: Connection) -> list[Row]:
    """All services, revoked ones too."""
    return [Row(**row) for row in await db.fetch(_ALL)]


async def add(db: Connection, name: str, plugin: str, title: str, settings: Mapping[str, Any]) -> ServiceId | None:
    """A new service; None if the name is taken."""
    found = await db.fetchval(_ADD, name, plugin, title, orjson.dumps(settings).decode())
    return None if found is None else ServiceId(found)


_LOCK = "SELECT service_id, name, plugin, title, state, settings FROM service WHERE name = $1 FOR NO KEY UPDATE"

_CONFIGURE = "UPDATE service SET settings = $2 WHERE service_id = $1"

_SET_STATE = "UPDATE service SET state = $2 WHERE service_id = $1"


async def lock(db: Connection, name: str) -> Row | None:
    """One service, locked against other changes until the transaction ends; None if there is none."""
    row = await db.fetchrow(_LOCK, name)
    return None if row is None else Row(**row)


async def configure(db: Connection, service: ServiceId, settings: Mapping[str, Any]) -> None:
    """Replace what differs from the defaults."""
    await db.execute(_CONFIGURE, service, orjson.dumps(settings).decode())


async def set_state(db: Connection, service: ServiceId, state: ServiceState) -> None:
    """Pause, resume, revoke or restore."""
    await db.execute(_SET_STATE, service, state)


# The catalogue's lock: alone for whoever adds a service, shared by whoever adds items (`items.add`).  So each item is
# either in the catalogue when the service is added, and is found by the fill, or its adder knows of the service.
_LOCK_CATALOGUE = "SELECT pg_advisory_xact_lock(hashtext('coordinator.catalogue'))"


async def lock_catalogue(db: Connection) -> None:
    """Take the catalogue's lock until the transaction ends."""
    await db.execute(_LOCK_CATALOGUE)


_BEGIN_FILL = """
INSERT INTO service_fill (service_id, upto)
SELECT $1, max(item_id) FROM item HAVING max(item_id) IS NOT NULL"""

_FILLS = "SELECT f.service_id FROM service_fill f JOIN service s USING (service_id) WHERE s.state <> 'revoked'"

_NEXT = """
SELECT after, upto FROM service_fill WHERE service_id = $1 FOR UPDATE SKIP LOCKED"""

# Locked against deletion until they have joined, as when items are added.
_BATCH = """
SELECT item_id, key, attributes FROM item WHERE item_id > $1 AND item_id <= $2
 ORDER BY item_id LIMIT $3 FOR KEY SHARE"""

_ADVANCE = "UPDATE service_fill SET after = $2 WHERE service_id = $1"

_FILLED = "DELETE FROM service_fill WHERE service_id = $1"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item of the catalogue that a new service may take."""

    item: ItemId
    key: str
    attributes: dict[str, Any]


async def begin_fill(db: Connection, service: ServiceId) -> None:
    """Note that a service is to be offered all items that are in the catalogue now."""
    await db.execute(_BEGIN_FILL, service)


async def fills(db: Connection) -> list[ServiceId]:
    """The services that have not come through the catalogue yet."""
    return [ServiceId(row["service_id"]) for row in await db.fetch(_FILLS)]


async def next_candidates(db: Connection, service: ServiceId, limit: int) -> list[Candidate] | None:
    """The next items to offer, until the transaction ends for nobody else; None if another node is at it or it is over.

    Empty: the end is reached, and the fill with it.
    """
    place = await db.fetchrow(_NEXT, service)
    if place is None:
        return None
    found = [
        Candidate(row["item_id"], row["key"], row["attributes"])
        for row in await db.fetch(_BATCH, place["after"], place["upto"], limit)
    ]
    if found:
        await db.execute(_ADVANCE, service, found[-1].item)
    else:
        await db.execute(_FILLED, service)
    return found
