"""The services as this node knows them: what the database says, joined with the plugins that are installed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from coordinator.errors import (
    BadMessage,
    ClientDeactivated,
    ConfigError,
    NotJoined,
    ServiceRevoked,
    UnknownService,
)
from coordinator.flow.roster import Identity
from coordinator.model import Service, ServiceId
from coordinator.services import Plugin, Reader
from coordinator.store import services as store
from coordinator.store.pool import Connection
from coordinator.wire.client import Membership, ServiceCard

ITEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"item": {"type": "integer"}, "key": {"type": "string"}},
    "required": ["item", "key"],
}
"""An item in a `bucket` push; attributes of any name stand beside these two."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One service, ready for use."""

    service: Service
    plugin: Plugin
    reader: Reader
    card: dict[str, Any]
    """The parts of a ServiceCard that are the same for all clients."""


class Catalogue:
    """All services of this coordinator."""

    def __init__(self, plugins: dict[str, Plugin]) -> None:
        self.plugins = plugins
        self._by_id: dict[ServiceId, Entry] = {}
        self._by_name: dict[str, Entry] = {}

    async def load(self, db: Connection) -> list[Entry]:
        """Read the services again; returns those that are new or have changed.

        Raises:
            ConfigError: a service's plugin is not installed.
        """
        changed = []
        for service in await store.load(db):
            known = self._by_id.get(service.service_id)
            if known is not None and known.service == service:
                continue
            plugin = self.plugins.get(service.plugin)
            if plugin is None:
                raise ConfigError(
                    f"The service {service.name} needs the plugin {service.plugin}, which is not installed."
                )
            entry = Entry(service, plugin, Reader(plugin), _card(service, plugin))
            self._by_id[service.service_id] = self._by_name[service.name] = entry
            changed.append(entry)
        return changed

    def all(self) -> list[Entry]:
        """Every service, revoked ones too, in the order they were added."""
        return list(self._by_id.values())

    def by_id(self, service: ServiceId) -> Entry:
        """The service of that id."""
        return self._by_id[service]

    def get(self, name: str) -> Entry:
        """The service of that name.

        Raises:
            UnknownService: there is none.
        """
        entry = self._by_name.get(name)
        if entry is None:
            raise UnknownService(f"There is no service {name!r}.")
        return entry

    def living(self, name: str) -> Entry:
        """The service of that name, if it has not been revoked.

        Raises:
            UnknownService, ServiceRevoked
        """
        entry = self.get(name)
        refuse_revoked(entry)
        return entry


def refuse_revoked(entry: Entry) -> None:
    """Raises: ServiceRevoked"""
    if entry.service.state == "revoked":
        raise ServiceRevoked(f"The service {entry.service.name} was revoked.", scope="service")


def refuse_strangers(entry: Entry, identity: Identity, *, idle_may: bool) -> None:
    """Check a request that is about a service against the client's membership, in the protocol's order.

    Raises:
        ServiceRevoked, ClientDeactivated, NotJoined
    """
    refuse_revoked(entry)
    membership = identity.memberships.get(entry.service.service_id)
    if membership is not None and membership.joined and membership.inactive is not None:
        if membership.inactive == "admin" or not idle_may:
            raise ClientDeactivated(
                f"This client is inactive in {entry.service.name}.",
                detail={"reason": membership.inactive},
                scope="client",
            )
    elif membership is None or not membership.joined:
        raise NotJoined(f"This client has not joined {entry.service.name}.")


def read_profile(entry: Entry, profile: dict[str, Any] | None, path: str) -> dict[str, Any]:
    """A profile checked against the service's shape.

    Raises:
        BadMessage: `detail.path` begins with `path`.
    """
    try:
        msgspec.convert(profile or {}, entry.plugin.Profile)
    except msgspec.ValidationError as failure:
        what, _, inner = str(failure).partition(" - at `$")
        raise BadMessage(
            f"The profile for {entry.service.name}: {what}.", detail={"path": path + inner.rstrip("`")}
        ) from None
    return profile or {}


def membership_of(entry: Entry, identity: Identity) -> Membership:
    """A service as one client sees it."""
    found = identity.memberships.get(entry.service.service_id)
    return Membership(
        service=entry.service.name,
        state=entry.service.state,
        joined=found is not None and found.joined,
        active=found is not None and found.joined and found.inactive is None,
    )


def card_of(entry: Entry, identity: Identity) -> ServiceCard:
    """A service with all that a client needs in order to work for it."""
    seen = membership_of(entry, identity)
    return ServiceCard(
        service=seen.service, state=seen.state, joined=seen.joined, active=seen.active, **entry.card
    )


def _card(service: Service, plugin: Plugin) -> dict[str, Any]:
    return {
        "title": service.title,
        "item_schema": ITEM_SCHEMA,
        "result_schema": _schema(plugin.Result),
        "profile_schema": _schema(plugin.Profile),
        "settings": {**asdict(service.settings), **service.options},
    }


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    if "$ref" in schema:
        schema = components.pop(schema["$ref"].rsplit("/", 1)[1])
    return {**schema, "$defs": components} if components else schema
