"""Clients as the stats channel tells of them.  protocol.md, "Stats channel" """

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coordinator.model import Health
from coordinator.wire.frames import Doing, Waiting

ClientSort = Literal[
    "client_id", "state", "health", "settled", "held", "dead", "given_back", "connected", "last_access"
]
"""The columns by which clients are sorted."""


class ClientInService(Struct):
    """One client's work in one service: buckets `assigned`, submits `processed`, items `settled`, and the rest.

    `waiting` tells why nothing comes, if it has asked for more than it has; `inactive` by what it is inactive, and
    `inactive_reason` as `deactivated` of the client.
    """

    service: str
    joined: bool
    active: bool
    inactive: Literal["idle", "admin"] | None
    inactive_reason: str | None
    held: int
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
    waiting: Waiting | None


class ClientRow(Struct):
    """A client; the worst `health` of its services with the `reason` in words, and sums over them.

    `deactivated`: why an admin deactivated it, in the admin's words if an operator asks, else `by an admin`; `doing`:
    what it does now.
    """

    client_id: str
    screen_name: str
    state: str
    deactivated: str | None
    doing: Doing
    connected: int
    health: Health
    reason: str | None
    held: int
    settled: int
    given_back: int
    dead: int
    last_access: str | None
    services: list[ClientInService]


class ClientHour(Struct):
    """One hour of a client in a service, from `at` on: claims that ended then, and the items that they settled."""

    at: str
    service: str
    settled: int
    claims: int
    given_back: int
    dead: int
    disconnects: int


class Outcome(Struct):
    """The number of results of one kind (`label`) in the last hours: the client's own, and those of all others."""

    service: str
    label: str
    own: int
    others: int
