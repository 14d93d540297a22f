"""The version, close codes, field types and errors of all three channels.  protocol.md, "Framing" """

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.model import WaitReason

PROTOCOL = 1
SUBPROTOCOL = "coordinator.v1"

MAX_DEPTH = 16
"""Levels of nesting; a deeper frame is refused (`bad_message`)."""

BYTES_BEFORE_REGISTRATION = 64 * 1024
"""Largest frame that a peer may send before it is a registered client, or the `hello` of another one is accepted."""

Ref = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""A mark that a request may carry; its answer carries it back."""

NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$(?!\n)"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
"""Client ids, screen names, service names."""

BucketName = Annotated[str, Meta(min_length=1, max_length=64)]
"""A bucket's id: a random UUID in its usual form; any other text names no bucket."""

Secret = Annotated[str, Meta(min_length=32, max_length=256)]
Text = Annotated[str, Meta(max_length=1024)]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
PageSize = Annotated[int, Meta(ge=1, le=1000)]
Time = Annotated[str, Meta(max_length=64)]
"""An RFC 3339 time in UTC."""


class Close(IntEnum):
    """Close codes.  A client should reconnect after those below 4500 only."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    TOO_BIG = 1009
    RESTART = 1012
    OVERLOADED = 1013
    NO_HELLO = 4408
    SLOW_READER = 4409
    TOO_MANY = 4429
    BAD_CREDENTIALS = 4500
    FORBIDDEN = 4501
    DEACTIVATED = 4502
    VERSION = 4503


class Request(Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True):
    """Peer → server.  Answered once, by the type that its channel names for it or by an `error`."""

    ref: Ref | UnsetType = UNSET


class Answer(Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """Server → peer, one for each request, with the request's `ref`."""

    ref: Ref | UnsetType = UNSET


class Push(Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """Server → peer, without a request; has no `ref`."""


class Error(Answer, tag="error"):
    """A refused request; the session stays usable unless a close follows."""

    code: str
    message: str
    detail: dict[str, Any] | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET
    scope: Literal["connection", "client", "service", "server"] | UnsetType = UNSET


class ListedResult(Struct):
    """A stored result with its origin; not `valid`: it was invalidated."""

    service: str
    item: int
    key: str
    value: Any
    client_id: str
    session_id: str
    bucket_id: str
    claim: int
    at: str
    valid: bool


class Discovered(Struct):
    """The result that showed an item which nobody had added."""

    item: int
    service: str
    client_id: str
    claim: int


class Waiting(Struct, frozen=True):
    """The reason for which nothing comes to a client, in words too, and until when, if that is known."""

    reason: WaitReason
    text: str
    until: str | None


Activity = Literal["working", "limited", "unable", "backing_off", "waiting", "idle", "offline"]


class Doing(Struct, frozen=True):
    """Tells what a client does now, in words too; `since` when (offline), and `until` when, where that is known."""

    what: Activity
    text: str
    since: str | None
    until: str | None


class Limits(Struct, frozen=True):
    """The limits of this server; `welcome.limits`.  Times are seconds."""

    max_message_bytes: int
    max_buckets_per_ask: int
    max_held_buckets: int
    messages_per_minute: int
    registrations_per_minute: int
    connections_per_address: int
    max_sessions: int
    hello_timeout: float
    ping_interval: float
    ping_timeout: float


class ServerCard(Struct, frozen=True):
    """The server's name, version and node; `welcome.server`."""

    name: str
    version: str
    node: str
