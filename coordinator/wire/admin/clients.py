"""Requests `client.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct

from coordinator.model import Health, JsonObject
from coordinator.wire.admin.buckets import ListedBucket
from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, Doing, Name, PageSize, Request, Text, Waiting

ClientState = Literal["active", "inactive", "deactivated", "unregistered"]
"""`inactive`: in each service that it has joined."""


class ListedMembership(Struct):
    """A client in one service: buckets `assigned`, submits `processed`, items `settled`, and the rest.

    `waiting` tells why nothing comes, if it has asked for more than it has.  `inactive`: by what, with an
    admin's words in `inactive_reason`.
    """

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
    waiting: Waiting | None
    inactive: Literal["idle", "admin"] | None
    inactive_reason: str | None


class ListedClient(Struct):
    """A client; its `health` is the worst of its services, with the `reason` in words; `deactivated`: why it is.

    `doing`: what it does now.
    """

    client_id: str
    screen_name: str
    state: ClientState
    deactivated: str | None
    doing: Doing
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


class ListedSession(Struct):
    """A connection that a client has now: to which `node`, from which `address`, with which program, `since` when."""

    session_id: str
    node: str
    address: str
    agent: str | None
    since: str


class ClientShown(Ok, kw_only=True):
    """The fields of a `ListedClient`, its profile in each service, the buckets that it holds, and its sessions."""

    client_id: str
    screen_name: str
    state: ClientState
    deactivated: str | None
    doing: Doing
    connected: bool
    health: Health
    reason: str | None
    services: list[ListedMembership]
    profiles: dict[str, JsonObject]
    holds: list[ListedBucket]
    sessions: list[ListedSession]


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


class ClientExport(Request, tag="client.export"):
    """Tell all that is kept of a client: who it is, its sessions, claims, results and what was noted of it."""

    client_id: Name
    limit: PageSize = 100
    after: After | None = None


class ClientExportPage(Ok, kw_only=True):
    """One page of what is kept of a client, as the database wrote it."""

    rows: Raw
    next: str | None


class ClientErase(Request, tag="client.erase"):
    """Replace all that tells who a client is by a number, for good; its results stay."""

    client_id: Name


class ClientErased(Ok, kw_only=True):
    """The number, which is the id of what stays."""

    erased: str


ANSWERS: dict[type[Request], type[Answer]] = {
    ClientList: ClientPage,
    ClientShow: ClientShown,
    ClientDeactivate: ClientDeactivation,
    ClientActivate: ClientActivation,
    ClientForgetSecret: ClientForgotten,
    ClientExport: ClientExportPage,
    ClientErase: ClientErased,
}

ADMIN_ONLY: frozenset[type[Request]] = frozenset({ClientForgetSecret, ClientExport, ClientErase})
