"""The services as this node knows them: the rows of the database, joined with the installed plugins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec

from coordinator.errors import (
    ClientDeactivated,
    ConfigError,
    NotFound,
    NotJoined,
    ServiceRevoked,
    UnknownService,
)
from coordinator.flow.session_registry import Identity
from coordinator.flow.signal_types import ServiceReloaded
from coordinator.flow.signals import Signals
from coordinator.keys import KeyForm
from coordinator.model import JsonObject, Service, ServiceId, ServiceSettings
from coordinator.services import Plugin, Reader
from coordinator.services.contract import schema_of
from coordinator.services.settings import configured
from coordinator.store import services as store
from coordinator.store.pool import Connection
from coordinator.wire.client import Membership, ServiceCard

ITEM_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"item": {"type": "integer"}, "key": {"type": "string"}},
    "required": ["item", "key"],
}
"""An item in a `bucket` push; attributes of any name are beside these two."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One service, ready for use."""

    service: Service
    plugin: Plugin
    reader: Reader
    card: JsonObject
    """The fields of a ServiceCard that are the same for all clients."""


class Catalogue:
    """All services of this coordinator."""

    def __init__(
        self, plugins: Mapping[str, type[Plugin]], signals: Signals, key_form: KeyForm, *, trusts_newcomers: bool
    ) -> None:
        self.plugins = dict(plugins)
        self.filling: list[ServiceId] = []
        """The services that had not come through the catalogue when they were read."""
        self._key_form = key_form
        self._trusts_newcomers = trusts_newcomers
        self._signals = signals
        self._rows: dict[ServiceId, store.ServiceRecord] = {}
        self._by_id: dict[ServiceId, Entry] = {}
        self._by_name: dict[str, Entry] = {}
        self.unusable: dict[str, ConfigError] = {}
        """The services that this node cannot work for, though another node may, with the reasons."""
        self._reads = 0
        self._newest = 0

    async def load(self, db: Connection) -> list[Entry]:
        """Read the services from the database, and tell of those that are new or have changed; returns them.

        Raises:
            ConfigError: at the first read, the plugin of a service is not installed, or refuses the settings.
        """
        first = not self._reads
        self._reads += 1
        number = self._reads
        rows = await store.load(db)
        if number < self._newest:
            return []  # a later read was faster, and has newer rows
        self._newest = number
        self.filling = [row.service_id for row in rows if row.filling]

        changed = []
        for row in rows:
            if self._rows.get(row.service_id) == row:
                continue
            try:
                entry = self._entry(row)
            except ConfigError as failure:
                if first:
                    raise
                self.unusable[row.name] = failure
                continue

            self.unusable.pop(row.name, None)
            self._rows[row.service_id] = row
            self._by_id[row.service_id] = self._by_name[row.name] = entry
            self._signals.deliver(ServiceReloaded(row.service_id))
            changed.append(entry)
        return changed

    def _entry(self, row: store.ServiceRecord) -> Entry:
        kind = self.plugins.get(row.plugin)
        if kind is None:
            raise ConfigError(f"The service {row.name} needs the plugin {row.plugin}, which is not installed.")
        try:
            plugin = configured(kind, row.name, row.settings)
        except (ValueError, TypeError) as failure:
            raise ConfigError(f"The service {row.name}: {failure}") from failure
        plugin.key_form = self._key_form

        settings = {**kind.defaults, **row.settings}
        common = {name: settings.pop(name) for name in COMMON if name in settings}
        options = {**_own_defaults(kind), **settings}
        of_service = ServiceSettings(**common)
        if self._trusts_newcomers and "newcomer_buckets" not in common:
            of_service = dataclasses.replace(of_service, newcomer_buckets=of_service.max_held_buckets)
        service = Service(row.service_id, row.name, row.plugin, row.title, row.state, of_service, options)
        return Entry(service, plugin, plugin.reader(), _card(service, plugin))

    def all(self) -> list[Entry]:
        """Return every service, revoked ones too, in the order in which they were added."""
        return list(self._by_id.values())

    def enrolling(self) -> list[Entry]:
        """Return the active services that take all items."""
        active = [entry for entry in self.all() if entry.service.state == "active"]
        return [entry for entry in active if entry.service.settings.enrol == "all"]

    def by_id(self, service: ServiceId) -> Entry:
        """Return the service of that id.

        Raises:
            KeyError: this node cannot work for it.
        """
        return self._by_id[service]

    def knows(self, service: ServiceId) -> bool:
        """Return whether this node can work for the service of that id."""
        return service in self._by_id

    def name_of(self, service: ServiceId) -> str | None:
        """Return the name of the service of that id; None if this node cannot work for it."""
        entry = self._by_id.get(service)
        return None if entry is None else entry.service.name

    def has(self, name: str) -> bool:
        """Return whether there is a service of that name that this node can work for."""
        return name in self._by_name

    def get(self, name: str) -> Entry:
        """Return the service of that name.

        Raises:
            UnknownService: there is none.
        """
        entry = self._by_name.get(name)
        if entry is None:
            raise UnknownService(f"There is no service {name!r}.")
        return entry

    def named(self, name: str) -> Entry:
        """Return the service of that name to an admin.

        Raises:
            NotFound: there is none.
        """
        try:
            return self.get(name)
        except UnknownService as failure:
            raise NotFound(failure.message) from None

    def living(self, name: str) -> Entry:
        """Return the service of that name, unless it was revoked.

        Raises:
            UnknownService: there is none.
            ServiceRevoked: it was revoked.
        """
        entry = self.get(name)
        refuse_revoked(entry)
        return entry


def refuse_revoked(entry: Entry) -> None:
    """Check that a service was not revoked.

    Raises:
        ServiceRevoked: it was.
    """
    if entry.service.state == "revoked":
        raise ServiceRevoked(f"The service {entry.service.name} was revoked.", scope="service")


def refuse_strangers(entry: Entry, identity: Identity, *, idle_may: bool) -> None:
    """Check that a client may make a request about a service, in the protocol's order of checks.

    `idle_may`: a client that is inactive for idleness may, too.

    Raises:
        ServiceRevoked: the service was revoked.
        ClientDeactivated: the client is inactive in it.
        NotJoined: the client is not a member of it.
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


def membership_of(entry: Entry, identity: Identity) -> Membership:
    """Return a service as one client sees it."""
    membership = identity.memberships.get(entry.service.service_id)
    return Membership(
        service=entry.service.name,
        state=entry.service.state,
        joined=membership is not None and membership.joined,
        active=membership is not None and membership.joined and membership.inactive is None,
    )


def card_of(entry: Entry, identity: Identity) -> ServiceCard:
    """Return a service with all that a client needs to work for it."""
    seen = membership_of(entry, identity)
    return ServiceCard(service=seen.service, state=seen.state, joined=seen.joined, active=seen.active, **entry.card)


COMMON = tuple(field.name for field in dataclasses.fields(ServiceSettings))
"""Names of the settings that every service has; all others are the plugin's."""


def _own_defaults(kind: type[Plugin]) -> JsonObject:
    """Return the defaults of a plugin's own settings, by name."""
    defaults = {}
    for setting in msgspec.structs.fields(kind.Settings):
        if setting.default is not msgspec.NODEFAULT:
            defaults[setting.encode_name] = setting.default
        elif setting.default_factory is not msgspec.NODEFAULT:
            defaults[setting.encode_name] = setting.default_factory()
    return defaults


def _card(service: Service, plugin: Plugin) -> JsonObject:
    return {
        "title": service.title,
        "item_schema": ITEM_SCHEMA,
        "result_schema": plugin.result_schema(),
        "profile_schema": schema_of(plugin.Profile),
        "settings": {**asdict(service.settings), **service.options},
    }
