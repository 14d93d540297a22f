"""The messages of the client channel (`/v1/client`), one type each.  protocol.md, "Client channel" """

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from coordinator.wire.frames import (
    Answer,
    BucketName,
    Count,
    Error,
    Name,
    Push,
    Request,
    Seconds,
    Secret,
    ServerCard,
    Text,
)

ServiceState = Literal["active", "paused", "revoked"]
LostReason = Literal["released", "revoked", "deactivated", "done"]

Claim = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""The number of one handing-out of a bucket; it grows with every claim of that bucket."""


class Hold(Struct, frozen=True, forbid_unknown_fields=True):
    """A bucket that a client believes it still holds."""

    bucket_id: BucketName
    claim: Claim


Holds = Annotated[list[Hold], Meta(max_length=1000)]
"""The buckets that a client believes it still holds, each once."""


class Choice(Struct, frozen=True, forbid_unknown_fields=True):
    """A service to join while registering."""

    service: Name
    profile: dict[str, Any] | None = None


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


class Membership(Struct, frozen=True):
    """One service as this client sees it."""

    service: str
    state: ServiceState
    joined: bool
    active: bool


class ServiceCard(Membership, frozen=True, kw_only=True):
    """One service with all that a client needs in order to work for it."""

    title: str
    item_schema: dict[str, Any]
    result_schema: dict[str, Any]
    profile_schema: dict[str, Any]
    settings: dict[str, Any]


class Recollection(Struct, frozen=True):
    """The buckets that come again as pushes, and those that are lost; `welcome.recollected`."""

    regranted: list[str]
    dropped: list[str]


# Requests


class Hello(Request, tag="hello"):
    """Opens the session: the first message; names and authenticates the client."""

    protocol: int
    client_id: Name
    secret: Secret
    agent: Text | None = None
    holds: Holds | None = None


class Register(Request, tag="register"):
    """Binds the identity's secret and makes it a client.

    The fields are checked by the step, since a missing or wrong one is `bad_registration`.
    """

    screen_name: Any = None
    enrolment_token: Any = None
    services: Any = None


class Unregister(Request, tag="unregister"):
    """Ends the registration, for all sessions of this identity."""

    client_id: Any = None


class Services(Request, tag="services"):
    """Lists all services."""


class Join(Request, tag="join"):
    """Makes the client a member of a service."""

    service: Name
    profile: dict[str, Any] | None = None


class Leave(Request, tag="leave"):
    """Ends the membership in a service; the buckets that the client holds of it go back."""

    service: Name


class Activate(Request, tag="activate"):
    """Brings back a membership that was made inactive for idleness."""

    service: Name


class Ask(Request, tag="ask"):
    """Adds `count` to the buckets that this session waits for; 0 withdraws all of that service."""

    service: Name
    count: Count
    wait: bool = True


class Submit(Request, tag="submit"):
    """Delivers results of a bucket.

    `results` stays raw here: its shape is the service's, and is read once the bucket is known.
    """

    bucket_id: BucketName
    claim: Claim
    results: Raw
    final: bool


class Release(Request, tag="release"):
    """Gives one bucket back."""

    bucket_id: BucketName
    claim: Claim
    reason: Text | None = None


class Recollect(Request, tag="recollect"):
    """Takes back the buckets that the end of a connection released, if nobody has claimed them since."""

    holds: Holds | None = None


class Report(Request, tag="report"):
    """Tells that this client cannot work for a while; no fault is counted."""

    service: Name
    kind: Literal["upstream_limited", "cannot_work"]
    retry_after: Seconds | None = None
    text: Text | None = None


# Answers


class Welcome(Answer, tag="welcome", kw_only=True):
    """The session is open: the server, its limits, and what it knows of this client."""

    session_id: str
    server: ServerCard
    protocol: int
    registered: bool
    services: list[Membership]
    limits: Limits
    stats: dict[str, Any]
    recollected: Recollection | UnsetType = UNSET


class Registered(Answer, tag="registered", kw_only=True):
    """The identity is a client now."""

    client_id: str
    services: list[Membership]


class Unregistered(Answer, tag="unregistered", kw_only=True):
    """The registration has ended; `released` buckets went back."""

    released: int


class OfferedServices(Answer, tag="services", kw_only=True):
    """All services, revoked ones too."""

    services: list[ServiceCard]


class Joined(Answer, tag="joined", kw_only=True):
    """The client is a member of the service."""

    service: str


class Left(Answer, tag="left", kw_only=True):
    """The membership has ended; `released` buckets went back."""

    service: str
    released: int


class Activated(Answer, tag="activated", kw_only=True):
    """The membership is active."""

    service: str


class Asked(Answer, tag="asked", kw_only=True):
    """The buckets granted (`count`) and still waited for (`pending`), and the most that one ask grants (`limit`)."""

    service: str
    count: int
    pending: int
    limit: int


class Stored(Answer, tag="stored", kw_only=True):
    """The results are stored; sent only after the commit."""

    bucket_id: str
    stored: int
    discarded: int
    remaining: int
    closed: bool
    duplicate: bool


class Released(Answer, tag="released", kw_only=True):
    """The bucket is free; `remaining` of its items are not settled."""

    bucket_id: str
    remaining: int


class Recollected(Answer, tag="recollected", kw_only=True):
    """The buckets that come again as pushes, and those that are lost."""

    regranted: list[str]
    dropped: list[str]


class Reported(Answer, tag="reported", kw_only=True):
    """No bucket of that service comes for `retry_after` seconds."""

    service: str
    retry_after: float


# Pushes


class Bucket(Push, tag="bucket", kw_only=True):
    """A bucket to work on.  `items` are objects with `item`, `key` and the item's attributes.

    Times are seconds: if no item is settled for `dead_after`, the bucket is marked dead, and it is released
    `release_after` later.
    """

    service: str
    bucket_id: str
    claim: int
    items: Raw
    attempt: int
    dead_after: Seconds
    release_after: Seconds


class BucketDead(Push, tag="bucket_dead", kw_only=True):
    """The bucket was held too long; results still count until it is released, in `release_after` seconds."""

    bucket_id: str
    claim: int
    release_after: Seconds


class BucketLost(Push, tag="bucket_lost", kw_only=True):
    """The claim has ended, for `reason`."""

    bucket_id: str
    claim: int
    reason: LostReason


class ServiceChanged(Push, tag="service", kw_only=True):
    """A service was added, changed, revoked or restored."""

    service: str
    state: ServiceState


class LimitsChanged(Push, tag="limits", kw_only=True):
    """The limits have changed."""

    limits: Limits


class Drain(Push, tag="drain", kw_only=True):
    """The node hands out no new buckets; submits are accepted until the close 1012."""

    retry_after: Seconds
    reason: str


ANSWERS: dict[type[Request], type[Answer]] = {
    Hello: Welcome,
    Register: Registered,
    Unregister: Unregistered,
    Services: OfferedServices,
    Join: Joined,
    Leave: Left,
    Activate: Activated,
    Ask: Asked,
    Submit: Stored,
    Release: Released,
    Recollect: Recollected,
    Report: Reported,
}
"""The answer to each request, unless it is an `error`."""

PUSHES: tuple[type[Push], ...] = (Bucket, BucketDead, BucketLost, ServiceChanged, LimitsChanged, Drain)

FromServer: Any = Union[(Error, *ANSWERS.values(), *PUSHES)]
"""All messages that a client may receive; unknown fields are ignored."""
