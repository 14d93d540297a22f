"""Requests `stats`, `limits` and `health`, and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from msgspec import Struct

from coordinator.keys import KeyForm
from coordinator.wire.admin.fields import Ok
from coordinator.wire.admin.services import ServiceCounts
from coordinator.wire.frames import Answer, Limits, Request
from coordinator.wire.stats import Oldest, StatementRow


class ServiceStats(ServiceCounts):
    """The counts of a service, and what waits longest of each priority."""

    oldest: list[Oldest]


class StatementTotals(Struct):
    """The statements of this node since it started.

    `pool_waits` is how often all its connections were taken, `pool_waited` for how many seconds that made it wait.
    """

    statements: list[StatementRow]
    pool_waits: int
    pool_waited: float


class Stats(Request, tag="stats"):
    """Tell how far each service is, and what this node has asked of the database."""


class ServerStats(Ok, kw_only=True):
    """Each service with its items and open buckets, the statements of this node, and how keys are compared."""

    services: list[ServiceStats]
    database: StatementTotals
    key_form: KeyForm


class LimitedBy(Struct, frozen=True):
    """The reason for the limit of each figure of `Capacity` with this name, in a sentence."""

    sessions: str
    asks_per_second: str
    items_per_second: str
    items_per_second_made: str


class Capacity(Struct, frozen=True):
    """The load that one node carried on a known class of machine, `carries` of `limits`; nothing keeps a node to it.

    `sessions` is what a node takes by default, `memory_per_session` the bytes of an idle one.  Items are settled:
    `items_per_second` while buckets are ready, `items_per_second_made` while all of these are made, too.
    """

    machine: str
    sessions: int
    memory_per_session: int
    asks_per_second: int
    items_per_second: int
    items_per_second_made: int
    limited_by: LimitedBy


class LimitsShow(Request, tag="limits"):
    """Tell the limits of the server, as in the client channel's `welcome`, and what one node carries."""


class ServerLimits(Ok, kw_only=True):
    """The limits of the server, and what one node carried when it was measured."""

    limits: Limits
    carries: Capacity


class DatabaseHealth(Struct):
    """Whether the database answers, and its major version; null while it does not."""

    reachable: bool
    version: str | None


class Health(Request, tag="health"):
    """Tell whether the server lives and can work."""


class ServerHealth(Ok, kw_only=True):
    """Whether the process lives, can work, and is about to end."""

    live: bool
    ready: bool
    draining: bool
    database: DatabaseHealth


ANSWERS: dict[type[Request], type[Answer]] = {
    Stats: ServerStats,
    LimitsShow: ServerLimits,
    Health: ServerHealth,
}
