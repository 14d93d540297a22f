"""The messages of the stats channel (`/v1/stats`), one type each, and the content of a snapshot of each topic.
protocol.md, "Stats channel"

Counts of items are of one service or of all: `waiting` (in no bucket), `ready`, `claimed`, `dead` (by the state of
their bucket), `settled`, `quarantined`.  Rates are per second over the last ten.  Everything is of the whole
coordinator, whichever node answers, but for what says `node`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from coordinator.model import Health
from coordinator.wire.frames import Answer, ListedResult, Name, PageSize, Push, Request, ServerCard, Text, Time

Topic = Literal["overview", "services", "clients", "buckets", "nodes", "database", "events"]
"""A figure or table to subscribe to."""

Table = Literal["clients", "services", "buckets", "results", "events", "nodes", "history", "leaderboard"]
"""A table to read in pages."""

Step = Literal["minute", "hour"]

EventKind = Literal[
    "connect", "disconnect", "release", "dead", "lost", "fault", "admin", "health", "node", "quarantine", "register"
]

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

    `state` is of the table's rows, `kind` of `events`.  `search` is a part of a client's id or screen name.  `sort` is
    a column of `clients`, largest first but for `client_id`.  `step`, `since` and `until` are of `history` (and
    `results`), `span` of `leaderboard`.
    """

    service: Name | None = None
    client_id: Name | None = None
    key: Text | None = None
    state: Text | None = None
    health: Health | None = None
    kind: EventKind | None = None
    search: Annotated[str, Meta(max_length=64)] | None = None
    sort: Literal["client_id", "settled", "held", "dead", "given_back", "last_access"] | None = None
    step: Step | None = None
    since: Time | None = None
    until: Time | None = None
    span: Literal["day", "all"] | None = None


class Get(Request, tag="get"):
    """One page of a table."""

    topic: Table
    filter: Filter | None = None
    after: Annotated[str, Meta(max_length=512)] | None = None
    limit: PageSize = 100


class Page(Answer, tag="page", kw_only=True):
    """`next` goes into `after` of the next `get`; null at the end."""

    topic: str
    rows: list[Any]
    next: str | None


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


class Eta(Struct):
    """The time until nothing is left to do: seconds from now, of time in which work goes on.

    From the slowest and the fastest of the last active minutes; see the `statistics` of the server.
    """

    low: float
    high: float


class Oldest(Struct):
    """The longest waiting of one priority; nothing that arrives after `overtaken_until` can come before it."""

    priority: int
    since: str
    overtaken_until: str


class DemandCounts(Struct):
    """`pending` buckets that were asked for and are not there, by so many `clients`; `active` ones worked lately.

    In the overview, a client that asks in several services counts as `clients` in each.
    """

    pending: int
    clients: int
    active: int


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
    """Topic `overview`.  `recent` are the items settled in each second up to `at`, the newest last, at most 300."""

    items: Items
    buckets: Buckets
    items_per_second: float
    buckets_per_second: float
    recent: list[int]
    eta: Eta | None
    demand: DemandCounts
    clients: ClientCounts
    nodes: int
    faults: int


class ClientInService(Struct):
    """One client's work in one service: buckets `assigned`, submits `processed`, items `settled`, and the rest."""

    service: str
    joined: bool
    active: bool
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


class ClientRow(Struct):
    """A client; the worst `health` of its services with the `reason` in words, and sums over them."""

    client_id: str
    screen_name: str
    state: str
    connected: int
    health: Health
    reason: str | None
    held: int
    settled: int
    given_back: int
    dead: int
    last_access: str | None
    services: list[ClientInService]


class BucketRow(Struct):
    """An open bucket; `age` is the seconds since it was claimed, or last settled an item, or marked dead."""

    bucket_id: str
    service: str
    state: str
    client_id: str | None
    claim: int
    attempts: int
    remaining: int
    age: float | None


class NodeRow(Struct):
    """A node; its load as it said itself with its last renewal.

    `cpu` in cores, `memory` in bytes, `lag` in seconds that its event loop was late, at worst.
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


class EventRow(Struct):
    """Something that happened, after it did; newest first in tables."""

    event_id: int
    at: str
    kind: EventKind
    client_id: str | None
    service: str | None
    bucket_id: str | None
    text: str


class HistoryRow(Struct):
    """One minute or hour of one service, from `at` on."""

    at: str
    service: str
    settled: int
    buckets: int
    given_back: int
    dead: int
    disconnects: int
    bad_submits: int


class LeaderRow(Struct):
    """A volunteer's place by items settled."""

    place: int
    client_id: str
    screen_name: str
    settled: int


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
    "services": ServiceRow,
    "buckets": BucketRow,
    "results": ListedResult,
    "events": EventRow,
    "nodes": NodeRow,
    "history": HistoryRow,
    "leaderboard": LeaderRow,
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
