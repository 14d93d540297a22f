"""Requests `client.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coordinator.model import Health, JsonObject
from coordinator.wire.admin.buckets import ListedBucket
from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, Name, PageSize, Request, Text

ClientState = Literal["active", "inactive", "deactivated", "unregistered"]
"""`inactive`: in each service that it has joined."""


class ListedMembership(Struct):
    """A client in one service: buckets `assigned`, submits `processed`, items `settled`, and the rest."""

    service: str
    joined: bool
    assigned: int
    processed: int
    settled: int
    given_back: int
    dead: int
    disconnects: int
    bad_submits: int
    health: Health
    reason: str | None
    last_access: str
    active: bool


class ListedClient(Struct):
    """A client; its `health` is the worst of its services, with the `reason` in words."""

    client_id: str
    screen_name: str
    state: ClientState
    connected: bool
    health: Health
    reason: str | None
    services: list[ListedMembership]


class ClientList(Request, tag="client.list"):
    """List clients by id."""

    state: ClientState | None = None
    service: Name | None = None
    flagged: bool | None = None
    search: Text | None = None
    limit: PageSize = 100
    after: After | None = None


class ClientPage(Ok, kw_only=True):
    """One page of clients."""

    rows: list[ListedClient]
    next: str | None


class ClientShow(Request, tag="client.show"):
    """Show one client with its profiles and the buckets that it holds."""

    client_id: Name


class ClientShown(Ok, kw_only=True):
    """The fields of a `ListedClient`, its profile in each service, and the buckets that it holds."""

    client_id: str
    screen_name: str
    state: ClientState
    connected: bool
    health: Health
    reason: str | None
    services: list[ListedMembership]
    profiles: dict[str, JsonObject]
    holds: list[ListedBucket]


class ClientDeactivate(Request, tag="client.deactivate"):
    """Take a client's work away, in one service or wholly."""

    client_id: Name
    service: Name | None = None
    reason: Text | None = None


class ClientDeactivation(Ok, kw_only=True):
    """How many memberships, or clients, are inactive now, and how many buckets were released."""

    deactivated: int
    released: int


class ClientActivate(Request, tag="client.activate"):
    """Undo `client.deactivate`."""

    client_id: Name
    service: Name | None = None


class ClientActivation(Ok, kw_only=True):
    """How many memberships, or clients, are active again."""

    activated: int


class ClientForgetSecret(Request, tag="client.forget_secret"):
    """Let whoever registers next bind a secret of its own."""

    client_id: Name


class ClientForgotten(Ok, kw_only=True):
    """How many secrets were forgotten, and how many buckets their client held."""

    forgotten: int
    released: int


ANSWERS: dict[type[Request], type[Answer]] = {
    ClientList: ClientPage,
    ClientShow: ClientShown,
    ClientDeactivate: ClientDeactivation,
    ClientActivate: ClientActivation,
    ClientForgetSecret: ClientForgotten,
}

ADMIN_ONLY: frozenset[type[Request]] = frozenset({ClientForgetSecret})
