"""The page that Prometheus reads at /metrics: counts of this node, and the database's figures of the whole coordinator.

Everything is counted elsewhere and collected here when it is asked for, so that it costs nothing in between.  Labels
are of few values (services, states, kinds, names of statements): clients are on the dashboard, not here.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, get_args

import asyncpg
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from coordinator import __version__
from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.model import Boot, Health, Service, ServiceId, WaitReason
from coordinator.observe.cost_counts import CostCounts
from coordinator.observe.events import EVENT_KINDS
from coordinator.observe.histogram import Histogram
from coordinator.observe.node_load import NodeLoadMeter
from coordinator.stats.topics import service_totals
from coordinator.store import budgets, health
from coordinator.store.budgets import SpentBudget
from coordinator.store.faults import UNAVAILABLE_ERRORS
from coordinator.store.people import ClientTotals, count_clients
from coordinator.store.pool import Connection
from coordinator.store.statistics import ServiceTotals
from coordinator.store.upkeep import Upkeep, upkeep
from coordinator.wire.stats import ClientCounts, Items

T = TypeVar("T")

log = structlog.get_logger()

METRICS_DEADLINE = 3.0
"""Seconds that the database has for its figures; Prometheus gives up after 10."""

WORK_COUNTERS = (
    ("buckets_claimed", "Buckets handed out by this node.", "assigned"),
    ("items_settled", "Items settled through this node.", "settled"),
    ("submits_stored", "Submits stored by this node.", "processed"),
    ("submits_refused", "Submits refused for what was in them.", "bad_submits"),
    ("buckets_given_back", "Buckets that clients gave back.", "given_back"),
    ("buckets_died", "Buckets taken back since they were held too long.", "dead"),
    ("disconnects", "Sessions that ended while they held something.", "disconnects"),
)
"""Name, description, and the field of ServiceCounters."""

STATEMENT_COUNTERS = (
    ("calls", "How often this node ran a statement."),
    ("rows", "Rows that a statement returned or changed."),
    ("seconds", "How long this node waited for a statement."),
)
"""Name, which is also the field of StatementCounts, and description."""

SNAPSHOT_HOLDERS = ("session", "standby", "slot", "prepared")
"""Holders of an old snapshot; with `by_` before it, each is a field of Upkeep."""

WAIT_REASONS: tuple[WaitReason, ...] = get_args(WaitReason)

ITEM_STATES = tuple(name for name in Items.__struct_fields__ if name != "total")

SessionCounts = Mapping[str, int]
"""Open sessions of each channel."""


@dataclass(frozen=True, slots=True)
class CoordinatorFigures:
    """Figures of the whole coordinator, the same on each node; None for those that the database refuses to give."""

    totals: Mapping[ServiceId, ServiceTotals] | None
    clients: ClientTotals | None
    unwell: Mapping[tuple[ServiceId, Health], int] | None
    budgets: Mapping[ServiceId, SpentBudget] | None
    upkeep: Upkeep | None


class Metrics:
    """Collects the page."""

    def __init__(
        self,
        core: Core,
        grant: Grant,
        load: NodeLoadMeter,
        session_counts: Callable[[], SessionCounts],
        cost_counts: CostCounts,
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._grant = grant
        self._counters = core.counters
        self._events = core.events
        self._session_counts = session_counts
        self._cost_counts = cost_counts
        self._load = load
        self._boot = core.boot
        self._data = core.settings.data if core.settings.database is None else None
        self._about = (__version__, core.settings.node_name)
        self._figures: CoordinatorFigures | None = None

        self._collectors = CollectorRegistry(auto_describe=False)
        self._collectors.register(self)
        ProcessCollector(registry=self._collectors)

    async def page(self) -> tuple[str, bytes]:
        """Return content type and body; without the database's figures, if they do not come in time."""
        self._figures = await self._ask_database()
        return CONTENT_TYPE_LATEST, generate_latest(self._collectors)

    async def _ask_database(self) -> CoordinatorFigures | None:
        try:
            async with asyncio.timeout(METRICS_DEADLINE), self._database.connection() as db:
                return await _figures(db, self._boot, [entry.service for entry in self._catalogue.all()])
        except (Unavailable, TimeoutError):
            log.warning("metrics without what the database says")
            return None

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; prometheus_client calls it."""
        yield from self._of_node()
        yield from self._of_work()
        yield from self._of_demand()
        yield from self._of_waits()
        yield from self._of_costs()
        yield from self._of_durations()
        yield from self._of_statements()

        if (found := self._figures) is None:
            return
        if found.totals is not None:
            yield from self._of_services(found.totals)
        if found.clients is not None:
            yield from self._of_clients(found.clients)
        if found.unwell is not None:
            yield from self._of_health(found.unwell)
        if found.budgets is not None:
            yield from self._of_budgets(found.budgets)
        if found.upkeep is not None:
            yield from self._of_database(found.upkeep)

    # This node

    def _of_node(self) -> Iterator[Metric]:
        about = GaugeMetricFamily("coordinator_info", "The node that answers; always 1.", labels=("version", "node"))
        about.add_metric(self._about, 1)
        yield about

        up = "Whether the database answered this request."
        yield GaugeMetricFamily("coordinator_database_up", up, value=self._figures is not None)

        sessions = GaugeMetricFamily("coordinator_sessions", "Open sessions on this node.", labels=("channel",))
        for channel, count in self._session_counts().items():
            sessions.add_metric((channel,), count)
        yield sessions

        late = "The most that the event loop was late since the node last renewed its lease."
        yield GaugeMetricFamily("coordinator_event_loop_lag_seconds", late, value=self._load.lag)

        happened = CounterMetricFamily("coordinator_events", "What happened on this node, by kind.", labels=("kind",))
        for kind in EVENT_KINDS:
            happened.add_metric((kind,), self._events.counts[kind])
        yield happened

    def _of_work(self) -> Iterator[Metric]:
        for name, text, field in WORK_COUNTERS:
            counted = CounterMetricFamily(f"coordinator_{name}", text, labels=("service",))
            for service, totals in self._counters.totals.items():
                counted.add_metric((self._name(service),), getattr(totals, field))
            yield counted

    def _of_demand(self) -> Iterator[Metric]:
        held = GaugeMetricFamily("coordinator_buckets_held", "Held by sessions of this node.", labels=("service",))
        pending = GaugeMetricFamily(
            "coordinator_buckets_pending", "Asked for by sessions of this node and not there.", labels=("service",)
        )

        held_in = Counter(bucket.service_id for bucket in self._registry.all_held())
        demand = self._grant.demand()
        for entry in self._catalogue.all():
            name = entry.service.name
            held.add_metric((name,), held_in[entry.service.service_id])
            pending.add_metric((name,), demand[name].buckets if name in demand else 0)

        yield from (held, pending)

    def _of_waits(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "coordinator_sessions_waiting",
            "Sessions of this node that wait for buckets, by the reason that they were told.",
            labels=("service", "reason"),
        )
        counts = self._grant.waiting_by_reason()
        for entry in self._catalogue.all():
            of_service = counts.get(entry.service.service_id, Counter())
            for reason in WAIT_REASONS:
                waiting.add_metric((entry.service.name, reason), of_service[reason])
        yield waiting

    def _of_costs(self) -> Iterator[Metric]:
        charged = CounterMetricFamily(
            "coordinator_cost_charged",
            "Charged to clients for requests that bring nothing, in statements, by the type of the request.",
            labels=("request",),
        )
        for request, price in self._cost_counts.charged.items():
            charged.add_metric((request,), price)

        refused = CounterMetricFamily(
            "coordinator_cost_refused",
            "Requests refused since their client, or its block of addresses, had cost too much.",
            labels=("request",),
        )
        for request, count in self._cost_counts.refused.items():
            refused.add_metric((request,), count)
        yield from (charged, refused)

    def _of_durations(self) -> Iterator[Metric]:
        waits = self._grant.waits
        yield self._histogram("coordinator_bucket_wait_seconds", "From an ask to its bucket.", waits.bucket)
        yield self._histogram("coordinator_store_seconds", "From a submit to its commit.", waits.stored)

    def _of_statements(self) -> Iterator[Metric]:
        snapshot = self._database.load.snapshot()
        for name, text in STATEMENT_COUNTERS:
            counted = CounterMetricFamily(f"coordinator_statement_{name}", text, labels=("statement",))
            for statement in snapshot.statements:
                counted.add_metric((statement.statement,), getattr(statement, name))
            yield counted

        waits = "How often all connections were taken."
        yield CounterMetricFamily("coordinator_pool_waits", waits, value=snapshot.pool_waits)
        waited = "How long this node waited for a connection."
        yield CounterMetricFamily("coordinator_pool_wait_seconds", waited, value=snapshot.pool_seconds)

    # The whole coordinator

    def _of_services(self, of_all: Mapping[ServiceId, ServiceTotals]) -> Iterator[Metric]:
        items = GaugeMetricFamily(
            "coordinator_items", "Items of a service by state, of all nodes.", labels=("service", "state")
        )
        buckets = GaugeMetricFamily(
            "coordinator_buckets_open", "Open buckets by state, of all nodes.", labels=("service", "state")
        )
        oldest = GaugeMetricFamily(
            "coordinator_oldest_waiting_seconds", "How long the oldest unclaimed item waits.", labels=("service",)
        )

        now = datetime.now(UTC)
        for entry in self._catalogue.all():
            name, service = entry.service.name, entry.service.service_id
            totals = of_all.get(service) or ServiceTotals(0, 0, 0)

            for item_state in ITEM_STATES:
                items.add_metric((name, item_state), getattr(totals, item_state))
            for bucket_state, count in totals.buckets.items():
                buckets.add_metric((name, bucket_state), count)

            since = min((first.since for first in totals.oldest.values()), default=now)
            oldest.add_metric((name,), max(0.0, (now - since).total_seconds()))

        yield from (items, buckets, oldest)

    def _of_clients(self, totals: ClientTotals) -> Iterator[Metric]:
        clients = GaugeMetricFamily("coordinator_clients", "Clients by what can be said of them.", labels=("state",))
        for kind in ClientCounts.__struct_fields__:
            clients.add_metric((kind,), getattr(totals, kind))
        yield clients

    def _of_health(self, counts: Mapping[tuple[ServiceId, Health], int]) -> Iterator[Metric]:
        unwell = GaugeMetricFamily(
            "coordinator_clients_unwell",
            "Clients that may work and are not ok, of all nodes.",
            labels=("service", "health"),
        )
        for entry in self._catalogue.all():
            for found in ("watched", "flagged"):
                unwell.add_metric((entry.service.name, found), counts.get((entry.service.service_id, found), 0))
        yield unwell

    def _of_budgets(self, spent_of: Mapping[ServiceId, SpentBudget]) -> Iterator[Metric]:
        budget = GaugeMetricFamily(
            "coordinator_budget", "What all clients together may have of a service.", labels=("service", "budget")
        )
        spent = GaugeMetricFamily(
            "coordinator_budget_spent",
            "What they have of it: items of the last minute, buckets held now.",
            labels=("service", "budget"),
        )

        for entry in self._catalogue.all():
            settings, found = entry.service.settings, spent_of.get(entry.service.service_id)
            if found is None:
                continue
            for name, most, used in (
                ("items_per_minute", settings.items_per_minute, found.items),
                ("max_claimed_buckets", settings.max_claimed_buckets, found.buckets),
            ):
                if most is not None and used is not None:
                    budget.add_metric((entry.service.name, name), most)
                    spent.add_metric((entry.service.name, name), used)
        yield from (budget, spent)

    def _of_database(self, found: Upkeep) -> Iterator[Metric]:
        lease = "What is left of the lease of this node; it ends itself before others free what it holds."
        yield GaugeMetricFamily("coordinator_lease_seconds", lease, value=found.lease)
        oldest = (
            "How long the oldest transaction is open; it keeps what was deleted or changed since from being cleaned."
        )
        yield GaugeMetricFamily("coordinator_oldest_transaction_seconds", oldest, value=found.oldest_transaction)
        held_back = GaugeMetricFamily(
            "coordinator_cleaning_held_back_transactions",
            "Transactions since the oldest snapshot that something holds: what went since cannot be cleaned away.",
            labels=("holder",),
        )
        for holder in SNAPSHOT_HOLDERS:
            held_back.add_metric((holder,), getattr(found, f"by_{holder}"))
        yield held_back

        size = "Size of the database on disk."
        yield GaugeMetricFamily("coordinator_database_bytes", size, value=found.bytes)
        dead = "Rows that wait to be cleaned away, of all tables."
        yield GaugeMetricFamily("coordinator_dead_rows", dead, value=found.dead_rows)
        if self._data is not None:
            free = "Free on the disk of the data folder; only where Postgres is embedded."
            yield GaugeMetricFamily("coordinator_data_free_bytes", free, value=shutil.disk_usage(self._data).free)

    def _histogram(self, name: str, text: str, durations: Histogram) -> Metric:
        family = HistogramMetricFamily(name, text, labels=("service",))
        for service, total in durations.sums().items():
            family.add_metric((self._name(service),), durations.up_to(service), total)
        return family

    def _name(self, service: ServiceId) -> str:
        return self._catalogue.name_of(service) or str(service)


async def _figures(db: Connection, boot: Boot, services: Sequence[Service]) -> CoordinatorFigures:
    return CoordinatorFigures(
        await _unless_refused(service_totals(db)),
        await _unless_refused(count_clients(db)),
        await _unless_refused(health.unwell(db)),
        await _unless_refused(budgets.spent(db, services)),
        await _unless_refused(upkeep(db, boot)),
    )


async def _unless_refused(question: Awaitable[T]) -> T | None:
    """Ask the database; a statement that it refuses leaves out its figures alone."""
    try:
        return await question
    except UNAVAILABLE_ERRORS:
        raise
    except asyncpg.PostgresError:
        log.exception("metrics without some of what the database says")
        return None
