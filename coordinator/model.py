"""The terms of the domain as types; SQL, protocol and documents use the same ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
    "settled",  # no item left
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
"""The reason for which a claim ended."""

Health = Literal["ok", "watched", "flagged"]
"""The health of a client in a service.  `watched`: unusual, without effect yet.  `flagged`: it may hold less."""


JsonObject = dict[str, Any]
"""A JSON object whose shape a service, an admin or a schema decides: a profile, options, the detail of an error."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of a service, which can be changed while it runs.  Times are seconds.

    A bucket has `bucket_size` items.  A client gets at most `max_buckets_per_ask` buckets for one ask, and holds at
    most `max_held_buckets`.  A claimed bucket of which no item was settled for `dead_after` is dead; it is released
    `release_after` later.  `max_head_start` is the most that a priority can be worth.  A client that has not worked
    for `idle_after` becomes inactive.  An item whose result is older than `recheck_after` (None: never) is checked
    again.
    """

    bucket_size: int = 180
    max_buckets_per_ask: int = 10
    max_held_buckets: int = 20
    dead_after: float = 7200.0
    release_after: float = 900.0
    recheck_after: float | None = None
    idle_after: float = 7 * 86_400.0
    max_head_start: float = 86_400.0

    def overtaken_until(self, rank_at: datetime) -> datetime:
        """Return the time after which nothing that arrives can come before what has this rank.  protocol.md, "Rank" """
        return rank_at + timedelta(seconds=self.max_head_start)


@dataclass(frozen=True, slots=True)
class Service:
    """One service as the database knows it."""

    service_id: ServiceId
    name: str
    plugin: str
    title: str
    state: ServiceState
    settings: ServiceSettings
    options: JsonObject = field(default_factory=dict)
    """The plugin's own settings, such as `result_schema` of `generic`."""


@dataclass(frozen=True, slots=True)
class ClientMembership:
    """The membership of a client in a service."""

    service_id: ServiceId
    joined: bool
    inactive: Literal["idle", "admin"] | None
    profile: JsonObject
    health: Health = "ok"


@dataclass(frozen=True, slots=True)
class Demand:
    """A session's demand for one bucket."""

    client_id: ClientId
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class Claimed:
    """A new claim of a bucket, as the claim statement returned it.

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
    """Whether it was taken over from another session of the client, where it had been marked dead."""


@dataclass(frozen=True, slots=True)
class Freed:
    """A bucket whose claim has ended, and the client and session that held it."""

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
