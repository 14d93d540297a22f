"""The words of the domain as types; the same in SQL, protocol and documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NewType
from uuid import UUID

ServiceId = NewType("ServiceId", int)
ItemId = NewType("ItemId", int)
ClientId = NewType("ClientId", str)
SessionId = NewType("SessionId", UUID)
BucketId = NewType("BucketId", UUID)
ClaimNumber = NewType("ClaimNumber", int)
Boot = NewType("Boot", int)
"""The number of one start of one node."""

ServiceState = Literal["active", "paused", "revoked"]
BucketState = Literal["ready", "claimed", "dead", "done"]
ItemState = Literal["waiting", "ready", "claimed", "settled", "quarantined"]
"""An item in a dead bucket counts as `claimed`."""

Ended = Literal[
    "settled",  # nothing left
    "partial",  # a final submit with items left
    "released",  # by its client
    "cut_off",  # the connection ended
    "dead",  # held too long
    "drained",  # the node drained, and the client did not come back in time
    "crashed",  # the node went away
    "undelivered",  # the session had ended before the claim came through
    "recollected",  # went on under a new claim
    "revoked",  # the service
    "deactivated",  # the client
    "left",  # the client left the service
    "unregistered",  # the client
    "taken",  # by an admin
]
"""How a claim ended."""

Health = Literal["ok", "watched", "flagged"]
"""Of a client in a service.  `watched`: something is odd, nothing is done yet.  `flagged`: it may hold less."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What can be set for each service while it runs.  Times are seconds.

    A bucket is of `bucket_size` items; a client may have `max_buckets_per_ask` of one ask, and hold
    `max_held_buckets`.  One of which nothing was settled for `dead_after` is dead, and `release_after` later anyone's.
    `max_head_start` caps what a priority is worth; `idle_after` makes a client inactive that has not worked
    for so long; `recheck_after` (None: never) lets old results become due again.
    """

    bucket_size: int = 180
    max_buckets_per_ask: int = 10
    max_held_buckets: int = 20
    dead_after: float = 7200.0
    release_after: float = 900.0
    recheck_after: float | None = None
    idle_after: float = 7 * 86_400.0
    max_head_start: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Service:
    """One service as the database knows it."""

    service_id: ServiceId
    name: str
    plugin: str
    title: str
    state: ServiceState
    settings: ServiceSettings
    options: dict[str, Any] = field(default_factory=dict)
    """The plugin's own settings, such as `result_schema` of `generic`."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A client in a service."""

    service_id: ServiceId
    joined: bool
    inactive: Literal["idle", "admin"] | None
    profile: dict[str, Any]
    health: Health = "ok"


@dataclass(frozen=True, slots=True)
class Demand:
    """One bucket wanted by one session."""

    client_id: ClientId
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class Claimed:
    """One handing-out, as the claim statement returned it.

    `items` are the ids in the bucket's order, `settled` one '0' or '1' for each of them ('1': not handed out),
    `frame` the JSON array of all of them.
    """

    service_id: ServiceId
    bucket_id: BucketId
    claim: ClaimNumber
    client_id: ClientId
    session_id: SessionId
    attempts: int
    items: tuple[ItemId, ...]
    settled: str
    frame: str
    dead: bool = False
    """Taken over from another session of the client, where it had been marked dead."""


@dataclass(frozen=True, slots=True)
class Freed:
    """A bucket that someone no longer holds."""

    service_id: ServiceId
    bucket_id: BucketId
    claim: ClaimNumber
    client_id: ClientId
    session_id: SessionId | None
    remaining: int


@dataclass(frozen=True, slots=True)
class WaitingItem:
    """An item that is not in a bucket."""

    item_id: ItemId
    key: str
    rank_at: datetime
    since: datetime
    priority: int
