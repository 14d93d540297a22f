"""Services: plugin, state and settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson

from coordinator.model import Service, ServiceId, ServiceSettings
from coordinator.store.pool import Connection

_KNOWN = frozenset(field.name for field in dataclasses.fields(ServiceSettings))

_ALL = "SELECT service_id, name, plugin, title, state, settings FROM service ORDER BY service_id"

_ADD = """
INSERT INTO service (name, plugin, title, settings) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO NOTHING RETURNING service_id"""


async def load(db: Connection) -> list[Service]:
    """All services, revoked ones too."""
    return [_service(row) for row in await db.fetch(_ALL)]


async def add(
    db: Connection, name: str, plugin: str, title: str, settings: dict[str, Any]
) -> ServiceId | None:
    """A new service; None if the name is taken."""
    found = await db.fetchval(_ADD, name, plugin, title, orjson.dumps(settings).decode())
    return None if found is None else ServiceId(found)


def _service(row: Any) -> Service:
    settings = {name: value for name, value in row["settings"].items() if name in _KNOWN}
    options = {name: value for name, value in row["settings"].items() if name not in _KNOWN}
    return Service(
        ServiceId(row["service_id"]),
        row["name"],
        row["plugin"],
        row["title"],
        row["state"],
        ServiceSettings(**settings),
        options,
    )
