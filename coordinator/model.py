"""The terms of the domain as types; SQL, protocol and documents use the same ones."""

from __future__ import annotations

from collections.abc import Mapping
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
    "expired",  # held for `max_claim_time`, whatever its progress
]
"""The reason for which a claim ended."""

Health = Literal["ok", "watched", "flagged"]
"""The health of a client in a service.  `watched`: unusual, without effect yet.  `flagged`: it may hold less."""

OTHER_KINDS = "others"
"""The kind of results that are counted together, since there are more kinds than are told apart."""

NoticeLevel = Literal["info", "warning", "error"]

WaitReason = Literal[
    "draining",  # the node is about to end
    "paused",  # the service is
    "outdated",  # its program is too old, or not among those that the service takes
    "deactivated",  # it may not work for the service
    "reported",  # it said that it cannot work
    "backing_off",  # for what it, or the newcomers of its address, gave back
    "at_limit",  # it holds what it may
    "budget",  # the service has handed out what it may, to all clients
    "newcomer",  # it holds what it may as long as it has settled little
    "returned_all",  # it lately gave back all that is ready
    "making",  # items wait, and buckets are being made
    "no_items",  # nothing is left to hand out
]
"""The reason for which a client waits, in the order in which they are checked."""


ReportKind = Literal["upstream_limited", "cannot_work"]
"""Reasons that a client reports when it can do nothing for a while: its outside API takes no more, or another."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The reason for which a client waits, in words too, and when it ends, where that is known."""

    reason: WaitReason
    text: str
    until: datetime | None = None


JsonObject = dict[str, Any]
"""A JSON object whose shape a service, an admin or a schema decides: a profile, options, the detail of an error."""


Enrol = Literal["all", "named"]


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of a service, which can be changed while it runs.  Times are seconds.

    A bucket has `bucket_size` items.  A client gets at most `max_buckets_per_ask` buckets for one ask, and holds at
    most `max_held_buckets`; one that has settled nothing holds at most `newcomer_buckets`, which each bucket's worth
    that it settles doubles.

    A claimed bucket of which no item was settled for `dead_after` is dead; it is released `release_after` later.  A
    claim ends after `max_claim_time`, whatever its progress.  A result takes at most `max_result_bytes`, and a claim at
    most `max_parts` results that leave their items unsettled.

    `enrol` is whether it takes all items of the catalogue, or only those that are named for it; `discover` whether the
    new keys that its results show become items.

    `max_head_start` is the most that a priority can be worth.  A client that has not worked for `idle_after` becomes
    inactive.  An item whose result is older than `recheck_after` (None: never) is checked again.

    At most `items_per_minute` (but for the rest of a bucket) are handed out, and `max_claimed_buckets` are held, by all
    clients together, on all nodes (None: any number).

    `agents` names programs of clients, each with the oldest version that gets work; `agents_only`: no others do.
    """

    enrol: Enrol = "all"
    discover: Literal["off", "on"] = "off"
    bucket_size: int = 180
    max_buckets_per_ask: int = 10
    max_held_buckets: int = 20
    newcomer_buckets: int = 2
    dead_after: float = 7200.0
    release_after: float = 900.0
    max_claim_time: float = 7 * 86_400.0
    max_result_bytes: int = 262_144
    max_parts: int = 5000
    recheck_after: float | None = None
    idle_after: float = 7 * 86_400.0
    max_head_start: float = 86_400.0
    items_per_minute: int | None = None
    max_claimed_buckets: int | None = None
    agents: Mapping[str, str] = field(default_factory=dict)
    agents_only: bool = False

    @property
    def has_budget(self) -> bool:
        """Whether there is a bound on what all clients together may have."""
        return self.items_per_minute is not None or self.max_claimed_buckets is not None

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
    settled: bool = False
    """Whether it has settled something that nobody took back."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A session's demand for one bucket."""

    client_id: ClientId
    session_id: SessionId
    address: str
    """The block of addresses from which the session came."""
    agent: str | None = None
    """The program of the session, as it says."""


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
    age: float = 0.0
    """Seconds since its client first had it, if it was regranted."""


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
