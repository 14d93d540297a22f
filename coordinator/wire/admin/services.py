"""Requests `service.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from coordinator.model import JsonObject, ServiceState
from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, Name, PageSize, Request, Text


class ListedService(Struct):
    """A service; `settings` has the defaults too."""

    service: str
    plugin: str
    title: str
    state: ServiceState
    settings: JsonObject


class ServiceCounts(Struct):
    """Items of a service by where they are, their sum `items`, and its open buckets by state."""

    service: str
    state: ServiceState
    items: int
    waiting: int
    ready: int
    claimed: int
    dead: int
    settled: int
    quarantined: int
    ready_buckets: int
    claimed_buckets: int
    dead_buckets: int


class ServiceList(Request, tag="service.list"):
    """List the services by name, revoked ones too."""

    limit: PageSize = 100
    after: After | None = None


class ServicePage(Ok, kw_only=True):
    """One page of services."""

    rows: list[ListedService]
    next: str | None


class ServiceAnswer(Ok, kw_only=True):
    """A service as it is now: the fields of a `ListedService`."""

    service: str
    plugin: str
    title: str
    state: ServiceState
    settings: JsonObject


class ListedPlugin(Struct):
    """A plugin that this node has: the settings of its own, and the services that are made of it.

    `settings_schema`, where it was asked for, is the JSON Schema of all settings of a service of it.
    """

    plugin: str
    title: str
    settings: list[str]
    services: list[str]
    settings_schema: JsonObject | UnsetType = UNSET


class ServicePlugins(Request, tag="service.plugins"):
    """List the plugins that a service can be made of; `schemas`: with the shape of their settings."""

    limit: PageSize = 100
    after: After | None = None
    schemas: bool = False


class PluginPage(Ok, kw_only=True):
    """One page of plugins."""

    rows: list[ListedPlugin]
    next: str | None


class ServiceShow(Request, tag="service.show"):
    """Show one service with its items and open buckets."""

    service: Name


class ServiceShown(ServiceAnswer, kw_only=True):
    """A service with its items and open buckets, and the shape of its results."""

    counts: ServiceCounts
    result_schema: JsonObject


class ServiceAdd(Request, tag="service.add"):
    """Add a service; the items that it selects come to wait in it."""

    service: Name
    plugin: Name
    title: Text | None = None
    settings: JsonObject | None = None


class ServiceConfigure(Request, tag="service.configure"):
    """Change some settings of a service; null takes one back to its default."""

    service: Name
    settings: JsonObject


class ServicePause(Request, tag="service.pause"):
    """Hand out nothing more of a service; asks wait, submits count."""

    service: Name


class ServiceResume(Request, tag="service.resume"):
    """Undo `service.pause`."""

    service: Name


class ServiceRevoke(Request, tag="service.revoke"):
    """End a service; its history stays."""

    service: Name


class ServiceRevocation(ServiceAnswer, kw_only=True):
    """The service, and how many buckets were held of it."""

    released: int


class ServiceRestore(Request, tag="service.restore"):
    """Undo `service.revoke`."""

    service: Name


ANSWERS: dict[type[Request], type[Answer]] = {
    ServiceList: ServicePage,
    ServicePlugins: PluginPage,
    ServiceShow: ServiceShown,
    ServiceAdd: ServiceAnswer,
    ServiceConfigure: ServiceAnswer,
    ServicePause: ServiceAnswer,
    ServiceResume: ServiceAnswer,
    ServiceRevoke: ServiceRevocation,
    ServiceRestore: ServiceAnswer,
}

ADMIN_ONLY: frozenset[type[Request]] = frozenset({ServiceAdd, ServiceRevoke, ServiceRestore})
