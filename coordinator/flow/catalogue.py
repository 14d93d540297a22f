"""The services as this node knows them: what the database says, joined with the plugins that are installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import structlog

from coordinator.errors import (
    BadMessage,
    ClientDeactivated,
    ConfigError,
    NotFound,
    NotJoined,
    ServiceRevoked,
    UnknownService,
)
from coordinator.flow.session_registry import Identity
from coordinator.model import Service, ServiceId, ServiceSettings
from coordinator.services import Plugin, Reader
from coordinator.services.contract import schema_of
from coordinator.services.settings import configured
from coordinator.store import services as store
from coordinator.store.pool import Connection
from coordinator.wire.client import Membership, ServiceCard

log = structlog.get_logger()

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

    def __init__(self, plugins: Mapping[str, type[Plugin]]) -> None:
        self.plugins = plugins
        self.changed: Callable[[Entry], None] = lambda entry: None
        """Called for each service that is new or has changed."""
        self._rows: dict[ServiceId, store.ServiceRow] = {}
        self._by_id: dict[ServiceId, Entry] = {}
        self._by_name: dict[str, Entry] = {}
        self._missing: set[str] = set()
        self._reads = 0
        self._newest = 0

    async def load(self, db: Connection) -> list[Entry]:
        """Read the services again; returns those that are new or have changed.

        Raises:
            ConfigError: a service that is there from the start needs a plugin that is not installed, or refuses
                its settings.
        """
        first = not self._reads
        self._reads += 1
        mine = self._reads
        rows = await store.load(db)
        if mine < self._newest:
            return []  # a later read was faster, and knows more
        self._newest = mine
        changed = []
        for row in rows:
            if self._rows.get(row.service_id) == row:
                continue
            try:
                entry = self._entry(row)
            except ConfigError as failure:
                if first:
                    raise
                # Added on another node, where it is installed: this node cannot work for it, and must go on.
                if row.plugin not in self._missing:
                    self._missing.add(row.plugin)
                    log.error("a service cannot be used here", service=row.name, error=str(failure))  # noqa: TRY400
                continue
            self._rows[row.service_id] = row
            self._by_id[row.service_id] = self._by_name[row.name] = entry
            self.changed(entry)
            changed.append(entry)
        return changed

    def _entry(self, row: store.ServiceRow) -> Entry:
        kind = self.plugins.get(row.plugin)
        if kind is None:
            raise ConfigError(f"The service {row.name} needs the plugin {row.plugin}, which is not installed.")
        try:
            plugin = configured(kind, row.name, row.settings)
        except (ValueError, TypeError) as failure:
            raise ConfigError(f"The service {row.name}: {failure}") from failure
        settings = {**kind.defaults, **row.settings}
        common = {name: settings.pop(name) for name in COMMON if name in settings}
        options = {**_own_defaults(kind), **settings}
        service = Service(
            row.service_id, row.name, row.plugin, row.title, row.state, ServiceSettings(**common), options
        )
        return Entry(service, plugin, plugin.reader(), _card(service, plugin))

    def all(self) -> list[Entry]:
        """Every service, revoked ones too, in the order they were added."""
        return list(self._by_id.values())

    def by_id(self, service: ServiceId) -> Entry:
        """The service of that id."""
        return self._by_id[service]

    def knows(self, service: ServiceId) -> bool:
        """Whether this node can work for the service of that id."""
        return service in self._by_id

    def name_of(self, service: ServiceId) -> str | None:
        """The name of the service of that id; None if this node cannot work for it."""
        entry = self._by_id.get(service)
        return None if entry is None else entry.service.name

    def get(self, name: str) -> Entry:
        """The service of that name.

        Raises:
            UnknownService: there is none.
        """
        entry = self._by_name.get(name)
        if entry is None:
            raise UnknownService(f"There is no service {name!r}.")
        return entry

    def named(self, name: str) -> Entry:
        """As `get`, for admins.

        Raises:
            NotFound: there is none.
        """
        try:
            return self.get(name)
        except UnknownService as failure:
            raise NotFound(failure.message) from None

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
    return ServiceCard(service=seen.service, state=seen.state, joined=seen.joined, active=seen.active, **entry.card)


COMMON = tuple(field.name for field in dataclasses.fields(ServiceSettings))
"""The settings that every service has; all others are the plugin's."""


def _own_defaults(kind: type[Plugin]) -> dict[str, Any]:
    found = {}
    for one in msgspec.structs.fields(kind.Settings):
        if one.default is not msgspec.NODEFAULT:
            found[one.encode_name] = one.default
        elif one.default_factory is not msgspec.NODEFAULT:
            found[one.encode_name] = one.default_factory()
    return found


def _card(service: Service, plugin: Plugin) -> dict[str, Any]:
    return {
        "title": service.title,
        "item_schema": ITEM_SCHEMA,
        "result_schema": plugin.result_schema(),
        "profile_schema": schema_of(plugin.Profile),
        "settings": {**asdict(service.settings), **service.options},
    }
