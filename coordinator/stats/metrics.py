"""The page that Prometheus reads at /metrics: counts of this node, and the database's figures of the whole coordinator.

Everything is counted elsewhere and collected here when it is asked for, so that it costs nothing in between.  Labels
are of few values (services, states, kinds, names of statements): clients are on the dashboard, not here.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from coordinator import __version__
from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.model import Boot, Health, ServiceId
from coordinator.observe.events import EVENT_KINDS
from coordinator.observe.histogram import Histogram
from coordinator.observe.node_load import NodeLoadMeter
from coordinator.stats.topics import service_totals
from coordinator.store import health
from coordinator.store.people import ClientTotals, count_clients
from coordinator.store.pool import Connection
from coordinator.store.statistics import ServiceTotals
from coordinator.store.upkeep import Upkeep, upkeep
from coordinator.wire.stats import ClientCounts, Items

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

ITEM_STATES = tuple(name for name in Items.__struct_fields__ if name != "total")

SessionCounts = Mapping[str, int]
"""Open sessions of each channel."""


@dataclass(frozen=True, slots=True)
class CoordinatorFigures:
    """Figures of the whole coordinator, the same on each node."""

    totals: Mapping[ServiceId, ServiceTotals]
    clients: ClientTotals
    unwell: Mapping[tuple[ServiceId, Health], int]
    upkeep: Upkeep


class Metrics:
    """Collects the page."""

    def __init__(
        self, core: Core, grant: Grant, load: NodeLoadMeter, session_counts: Callable[[], SessionCounts]
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._grant = grant
        self._counters = core.counters
        self._events = core.events
        self._session_counts = session_counts
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
                return await _figures(db, self._boot)
        except (Unavailable, TimeoutError):
            log.warning("metrics without what the database says")
            return None

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; prometheus_client calls it."""
        yield from self._of_node()
        yield from self._of_work()
        yield from self._of_demand()
        yield from self._of_durations()
        yield from self._of_statements()
        if self._figures is not None:
            yield from self._of_services(self._figures)
            yield from self._of_clients(self._figures)
            yield from self._of_database(self._figures.upkeep)

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

    def _of_services(self, figures: CoordinatorFigures) -> Iterator[Metric]:
        items = GaugeMetricFamily(
            "coordinator_items", "Items of a service by state, of all nodes.", labels=("service", "state")
        )
        buckets = GaugeMetricFamily(
            "coordinator_buckets_open", "Open buckets by state, of all nodes.", labels=("service", "state")
        )
        oldest = GaugeMetricFamily(
            "coordinator_oldest_waiting_seconds", "How long the oldest unclaimed item waits.", labels=("service",)
        )
        unwell = GaugeMetricFamily(
            "coordinator_clients_unwell",
            "Clients that may work and are not ok, of all nodes.",
            labels=("service", "health"),
        )

        now = datetime.now(UTC)
        for entry in self._catalogue.all():
            name, service = entry.service.name, entry.service.service_id
            totals = figures.totals.get(service) or ServiceTotals(0, 0, 0)

            for item_state in ITEM_STATES:
                items.add_metric((name, item_state), getattr(totals, item_state))
            for bucket_state, count in totals.buckets.items():
                buckets.add_metric((name, bucket_state), count)

            since = min((first.since for first in totals.oldest.values()), default=now)
            oldest.add_metric((name,), max(0.0, (now - since).total_seconds()))
            for found in ("watched", "flagged"):
                unwell.add_metric((name, found), figures.unwell.get((service, found), 0))

        yield from (items, buckets, oldest, unwell)

    def _of_clients(self, figures: CoordinatorFigures) -> Iterator[Metric]:
        clients = GaugeMetricFamily("coordinator_clients", "Clients by what can be said of them.", labels=("state",))
        for kind in ClientCounts.__struct_fields__:
            clients.add_metric((kind,), getattr(figures.clients, kind))
        yield clients

    def _of_database(self, found: Upkeep) -> Iterator[Metric]:
        lease = "What is left of the lease of this node; it ends itself before others free what it holds."
        yield GaugeMetricFamily("coordinator_lease_seconds", lease, value=found.lease)
        oldest = (
            "How long the oldest transaction is open; it keeps what was deleted or changed since from being cleaned."
        )
        yield GaugeMetricFamily("coordinator_oldest_transaction_seconds", oldest, value=found.oldest_transaction)
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


async def _figures(db: Connection, boot: Boot) -> CoordinatorFigures:
    return CoordinatorFigures(
        await service_totals(db), await count_clients(db), await health.unwell(db), await upkeep(db, boot)
    )
