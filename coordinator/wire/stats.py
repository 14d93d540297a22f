"""The messages of the stats channel (`/v1/stats`), one type each, and the content of a snapshot of each topic.
protocol.md, "Stats channel"

Counts of items are of one service or of all: `waiting` (in no bucket), `ready`, `claimed`, `dead` (by the state of
their bucket), `settled`, `quarantined`.  Rates are per second over the last ten.  Everything is of the whole
coordinator, whichever node answers, but for what says `node`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.model import Health, JsonObject
from coordinator.wire.frames import (
    Answer,
    BucketName,
    ListedResult,
    Name,
    PageSize,
    Push,
    Request,
    ServerCard,
    Text,
    Time,
)
from coordinator.wire.progress import Progress
from coordinator.wire.stats_clients import ClientHour, ClientRow, ClientSort, Outcome
from coordinator.wire.stats_events import EventKind as EventKind
from coordinator.wire.stats_events import EventRow as EventRow
from coordinator.wire.stats_events import Severity as Severity
from coordinator.wire.stats_rows import AgeRow as AgeRow
from coordinator.wire.stats_rows import BucketRow as BucketRow
from coordinator.wire.stats_rows import ClaimRow as ClaimRow
from coordinator.wire.stats_rows import Eta as Eta
from coordinator.wire.stats_rows import HistoryRow as HistoryRow
from coordinator.wire.stats_rows import ItemPlace as ItemPlace
from coordinator.wire.stats_rows import ItemRow as ItemRow
from coordinator.wire.stats_rows import KindRow as KindRow
from coordinator.wire.stats_rows import LeaderRow as LeaderRow
from coordinator.wire.stats_rows import Neighbour as Neighbour
from coordinator.wire.stats_rows import Neighbourhood as Neighbourhood
from coordinator.wire.stats_rows import ServiceSchemas as ServiceSchemas
from coordinator.wire.stats_rows import ShareRow as ShareRow
from coordinator.wire.stats_rows import StandingRow as StandingRow

Topic = Literal["overview", "services", "clients", "buckets", "nodes", "database", "events"]
"""A figure or table to subscribe to."""

Table = Literal[
    "clients",
    "services",
    "schemas",
    "items",
    "buckets",
    "claims",
    "results",
    "events",
    "nodes",
    "history",
    "kinds",
    "shares",
    "ages",
    "neighbours",
    "leaderboard",
    "standing",
    "progress",
    "client_hours",
    "outcomes",
]
"""A table to read in pages."""

Step = Literal["second", "minute", "hour"]

Span = Literal["day", "week", "month", "all"]
"""The time that a leaderboard counts: this day, week from Monday on, or month, by UTC, or all time."""

FIRST_ROWS = 50
"""Rows of a long table that stand in a snapshot; `get` has the rest."""


# Requests and their answers


class StatsHello(Request, tag="hello"):
    """The first message; `token` (of any role but enrolment) where the server wants one of viewers."""

    protocol: int
    token: Annotated[str, Meta(max_length=256)] | None = None


class StatsWelcome(Answer, tag="welcome", kw_only=True):
    """The session is open; `role` is that of the token on the admin channel (`viewer`: it has none there)."""

    role: Literal["viewer", "operator", "admin"]
    server: ServerCard
    protocol: int
    topics: list[str]


class Subscribe(Request, tag="subscribe"):
    """Sends a snapshot of each topic at once, and again when `interval` seconds have passed and something changed."""

    topics: Annotated[list[Topic], Meta(min_length=1)]
    interval: Annotated[float, Meta(ge=0.25, le=60)] = 1.0


class Subscribed(Answer, tag="subscribed", kw_only=True):
    """All topics that the session now has; the interval holds for all of them."""

    topics: list[str]
    interval: float


class Unsubscribe(Request, tag="unsubscribe"):
    """Ends the snapshots of these topics."""

    topics: Annotated[list[Topic], Meta(min_length=1)]


class Unsubscribed(Answer, tag="unsubscribed", kw_only=True):
    """The topics that the session still has."""

    topics: list[str]


class Filter(Struct, forbid_unknown_fields=True, kw_only=True):
    """Selects rows of a table; each table takes the filters that its rows have, and refuses the others.

    `state` is of the table's rows; `kind`, one or several, and `severity`, the least one, are of `events`.  `search` is
    a part of a client's id or screen name, `prefix` the beginning of an item's key.  `sort` is a column of `clients`,
    largest first but for `client_id`, unless `order` says it; `newest` is of `results`, and so is `value`: what the
    value of a result contains.  `connected`: clients that have a session, or have none.  `step` is of `history`,
    `since` and `until` too (and of `results` and `events`), `span` of `leaderboard`.
    """

    service: Name | None = None
    client_id: Name | None = None
    key: Text | None = None
    item: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    bucket_id: BucketName | None = None
    prefix: Annotated[str, Meta(max_length=256)] | None = None
    value: JsonObject | None = None
    state: Text | None = None
    health: Health | None = None
    kind: EventKind | Annotated[list[EventKind], Meta(min_length=1, max_length=20)] | None = None
    severity: Literal["warning", "error"] | None = None
    search: Annotated[str, Meta(max_length=64)] | None = None
    sort: ClientSort | Literal["newest"] | None = None
    order: Literal["asc", "desc"] | None = None
    connected: bool | None = None
    step: Step | None = None
    since: Time | None = None
    until: Time | None = None
    span: Span | None = None


class Get(Request, tag="get"):
    """One page of a table; `count`: of `clients`, with the number of all rows that match."""

    topic: Table
    filter: Filter | None = None
    after: Annotated[str, Meta(max_length=512)] | None = None
    limit: PageSize = 100
    count: bool = False


class Page(Answer, tag="page", kw_only=True):
    """`next` goes into `after` of the next `get`; null at the end.  `total`, where it was asked for: all that match."""

    topic: str
    rows: list[Any]
    next: str | None
    total: int | UnsetType = UNSET


class Snapshot(Push, tag="snapshot", kw_only=True):
    """The present state of a topic, whole; `seq` grows with each snapshot of that topic."""

    topic: str
    seq: int
    at: str
    data: Any


# The types in `snapshot.data`


class Items(Struct):
    """Items by state; their sum is `total`."""

    waiting: int = 0
    ready: int = 0
    claimed: int = 0
    dead: int = 0
    settled: int = 0
    quarantined: int = 0
    total: int = 0


class Buckets(Struct):
    """Open buckets by state."""

    ready: int = 0
    claimed: int = 0
    dead: int = 0


class Oldest(Struct):
    """The longest waiting of one priority; nothing that arrives after `overtaken_until` can come before it."""

    priority: int
    since: str
    overtaken_until: str


class DemandCounts(Struct):
    """`pending` buckets that were asked for and are not there, by so many `clients`; `active` ones worked lately.

    In the overview, a client that asks in several services counts as `clients` in each.  `reasons` counts the pending
    buckets by why they do not come (see `waiting`); those that are just being served are not in it.
    """

    pending: int
    clients: int
    active: int
    reasons: dict[str, int] = {}


class ServiceRow(Struct):
    """A service; `services.rows`, and `get services`."""

    service: str
    title: str
    plugin: str
    state: str
    items: Items
    buckets: Buckets
    items_per_second: float
    eta: Eta | None
    oldest: list[Oldest]
    demand: DemandCounts


class ClientCounts(Struct):
    """Numbers of clients; one client may be in several."""

    registered: int
    connected: int
    active: int
    watched: int
    flagged: int
    deactivated: int


class Overview(Struct):
    """Topic `overview`.

    `recent` are the items settled in each second up to `at`, the newest last, at most 300; `recent_by_service` the same
    of the services in which most was settled, at most 8.  `database_delay` is the longest of the nodes that run.
    """

    items: Items
    buckets: Buckets
    items_per_second: float
    buckets_per_second: float
    recent: list[int]
    recent_by_service: dict[str, list[int]]
    eta: Eta | None
    demand: DemandCounts
    clients: ClientCounts
    nodes: int
    faults: int
    database_delay: float


class NodeRow(Struct):
    """A node; its load as it said itself with its last renewal.

    `cpu` in cores, `memory` in bytes, `lag` in seconds that its event loop was late, at worst, `database_delay` in
    seconds that each of the last three small changes of the database took at least.  Of one that is gone, `ended_at`
    and `end_reason` tell when and why.
    """

    node: str
    boot: int
    state: str
    version: str
    started_at: str
    lease_until: str
    sessions: int
    items_per_second: float
    cpu: float
    memory: int
    lag: float
    database_delay: float
    ended_at: str | None
    end_reason: str | None


class StatementRow(Struct):
    """The cost of one named statement to the database, since the node started."""

    statement: str
    calls: int
    rows: int
    milliseconds: float


class DatabaseLoad(Struct):
    """Topic `database`: how this `node` uses it.  Per bucket means: per submit stored in the last minute."""

    node: str
    statements_per_second: float
    rows_per_second: float
    busy: float
    """Seconds that statements take in each second."""
    statements_per_bucket: float | None
    rows_per_bucket: float | None
    milliseconds_per_bucket: float | None
    pool_size: int
    pool_waits: int
    pool_waited: float
    statements: list[StatementRow]


class FirstRows(Struct):
    """Topics `services`, `clients`, `buckets`, `nodes` and `events`: the first rows of `total`."""

    total: int
    rows: list[Any]


ANSWERS: dict[type[Request], type[Answer]] = {
    StatsHello: StatsWelcome,
    Subscribe: Subscribed,
    Unsubscribe: Unsubscribed,
    Get: Page,
}
"""The answer to each request, unless it is an `error`."""

PUSHES: tuple[type[Push], ...] = (Snapshot,)

ROWS: dict[str, type[Struct]] = {
    "clients": ClientRow,
    "client_hours": ClientHour,
    "outcomes": Outcome,
    "services": ServiceRow,
    "schemas": ServiceSchemas,
    "items": ItemRow,
    "buckets": BucketRow,
    "claims": ClaimRow,
    "results": ListedResult,
    "events": EventRow,
    "nodes": NodeRow,
    "history": HistoryRow,
    "kinds": KindRow,
    "shares": ShareRow,
    "ages": AgeRow,
    "neighbours": Neighbourhood,
    "leaderboard": LeaderRow,
    "standing": StandingRow,
    "progress": Progress,
}
"""The rows of each table; those of `results` are as on the admin channel."""

TOPICS: dict[str, type[Struct]] = {
    "overview": Overview,
    "services": FirstRows,
    "clients": FirstRows,
    "buckets": FirstRows,
    "nodes": FirstRows,
    "database": DatabaseLoad,
    "events": FirstRows,
}
"""The type of `snapshot.data`; FirstRows are those of the table of the same name."""
