"""The messages of the client channel (`/v1/client`), one type each.  protocol.md, "Client channel" """

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from coordinator.model import ReportKind, WaitReason
from coordinator.wire.frames import (
    Answer,
    BucketName,
    Count,
    Error,
    Limits,
    Name,
    PageSize,
    Push,
    Request,
    Seconds,
    Secret,
    ServerCard,
    Text,
    Waiting,
)
from coordinator.wire.notices import NoticeInForce

ServiceState = Literal["active", "paused", "revoked"]
LostReason = Literal["released", "revoked", "deactivated", "done", "expired"]

Claim = Annotated[int, Meta(ge=1, le=2**53 - 1)]
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

    A missing or wrong field is answered `bad_registration`.
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
    """Delivers results of a bucket; their shape is that of the service."""

    bucket_id: BucketName
    claim: Claim
    results: Raw  # read once the bucket, and with it the service, is known
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
    kind: ReportKind
    retry_after: Seconds | None = None
    text: Text | None = None


class MeExport(Request, tag="me.export"):
    """Tells all that is kept of this client."""

    limit: PageSize = 100
    after: Annotated[str, Meta(max_length=512)] | None = None


# Answers


class Welcome(Answer, tag="welcome", kw_only=True, omit_defaults=False):
    """The session is open: the server, its limits, what it knows of this client, and what its operator has to say.

    `viewers`: whether the dashboard opens without a token to whoever comes the way of this session.
    """

    session_id: str
    server: ServerCard
    protocol: int
    registered: bool
    services: list[Membership]
    limits: Limits
    stats: dict[str, Any]
    notices: list[NoticeInForce] = field(default_factory=list)
    recollected: Recollection | UnsetType = UNSET
    viewers: Literal["open", "token"] = "token"


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


class Asked(Answer, tag="asked", kw_only=True, omit_defaults=False):
    """The buckets granted (`count`) and still waited for (`pending`), and the most that one ask grants (`limit`).

    `waiting` is null if all that is pending is at hand.
    """

    service: str
    count: int
    pending: int
    limit: int
    waiting: Waiting | None = None


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


class ExportedRow(Struct):
    """A row of what is kept of a client; the kind tells what stands in `data`."""

    kind: str
    data: dict[str, Any]


class Exported(Answer, tag="exported", kw_only=True):
    """One page of what is kept of this client; `next` is null at the end."""

    rows: Raw
    next: str | None


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


class WaitChanged(Push, tag="waiting", kw_only=True):
    """Nothing comes of what this session waits for, for another reason than it was told; `served`: it waits no more."""

    service: str
    reason: WaitReason | Literal["served"]
    text: str
    until: str | None = None


class ServiceChanged(Push, tag="service", kw_only=True):
    """A service was added, changed, revoked or restored."""

    service: str
    state: ServiceState


class LimitsChanged(Push, tag="limits", kw_only=True):
    """The limits have changed."""

    limits: Limits


class Notice(NoticeInForce, Push, tag="notice", kw_only=True):
    """The operator has something to say to this client."""


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
    MeExport: Exported,
}
"""The answer to each request, unless it is an `error`."""

PUSHES: tuple[type[Push], ...] = (
    Bucket,
    BucketDead,
    BucketLost,
    WaitChanged,
    ServiceChanged,
    LimitsChanged,
    Notice,
    Drain,
)

FromServer: Any = Union[(Error, *ANSWERS.values(), *PUSHES)]
"""All messages that a client may receive; unknown fields are ignored."""
