"""What Prometheus reads at /metrics: counts of this node, and what the database says of the whole coordinator.

Everything is counted elsewhere and collected here when it is asked for, so that it costs nothing in between.  Labels
are of few values (services, states, kinds, names of statements): clients are on the dashboard, not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from coordinator.errors import Unavailable
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.client_counters import ClientCounters
from coordinator.flow.grant import Grant
from coordinator.flow.session_registry import SessionRegistry
from coordinator.model import Health, ServiceId
from coordinator.observe.events import KINDS, Events
from coordinator.observe.histogram import Histogram, WaitTimes
from coordinator.store import health, statistics
from coordinator.store.people import ClientTotals, count_clients
from coordinator.store.pool import Connection, Database
from coordinator.store.statistics import ServiceTotals

log = structlog.get_logger()

DEADLINE = 3.0
"""Seconds that the database has for what it says; Prometheus gives up after 10."""

Sessions = Mapping[str, int]
"""How many there are on each channel."""


class Whole:
    """What the database says of the whole coordinator, the same on each node."""

    def __init__(
        self,
        states: Mapping[ServiceId, ServiceTotals],
        clients: ClientTotals,
        unwell: Mapping[tuple[ServiceId, Health], int],
    ) -> None:
        self.states = states
        self.clients = clients
        self.unwell = unwell


class Metrics:
    """The page."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        registry: SessionRegistry,
        grant: Grant,
        counters: ClientCounters,
        events: Events,
        waits: WaitTimes,
        sessions: Callable[[], Sessions],
        late: Callable[[], float],
        version: str,
        node: str,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._registry = registry
        self._grant = grant
        self._counters = counters
        self._events = events
        self._waits = waits
        self._sessions = sessions
        self._late = late
        self._about = (version, node)
        self._whole: Whole | None = None
        self._collectors = CollectorRegistry(auto_describe=False)
        self._collectors.register(self)
        ProcessCollector(registry=self._collectors)

    async def page(self) -> tuple[str, bytes]:
        """Content type and body; without what the database says, if it does not say it in time."""
        self._whole = await self._ask()
        return CONTENT_TYPE_LATEST, generate_latest(self._collectors)

    async def _ask(self) -> Whole | None:
        try:
            async with asyncio.timeout(DEADLINE), self._database.connection() as db:
                return await _whole(db)
        except (Unavailable, TimeoutError):
            log.warning("metrics without what the database says")
            return None

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        yield from self._of_node()
        yield from self._of_work()
        yield from self._of_database()
        if self._whole is not None:
            yield from self._of_whole(self._whole)

    def _of_node(self) -> Iterator[Metric]:
        about = GaugeMetricFamily("coordinator_info", "The node that answers; always 1.", labels=("version", "node"))
        about.add_metric(self._about, 1)
        yield about
        up = "Whether the database answered this request."
        yield GaugeMetricFamily("coordinator_database_up", up, value=self._whole is not None)
        here = GaugeMetricFamily("coordinator_sessions", "Open sessions on this node.", labels=("channel",))
        for channel, count in self._sessions().items():
            here.add_metric((channel,), count)
        yield here
        late = "The most that the event loop was late since the node last renewed its lease."
        yield GaugeMetricFamily("coordinator_event_loop_lag_seconds", late, value=self._late())
        happened = CounterMetricFamily("coordinator_events", "What happened on this node, by kind.", labels=("kind",))
        for kind in KINDS:
            happened.add_metric((kind,), self._events.counts[kind])
        yield happened

    def _of_work(self) -> Iterator[Metric]:
        totals = self._counters.totals
        for name, text, which in (
            ("buckets_claimed", "Buckets handed out by this node.", "assigned"),
            ("items_settled", "Items settled through this node.", "settled"),
            ("submits_stored", "Submits stored by this node.", "processed"),
            ("submits_refused", "Submits refused for what was in them.", "bad_submits"),
            ("buckets_given_back", "Buckets that clients gave back.", "given_back"),
            ("buckets_died", "Buckets taken back since they were held too long.", "dead"),
            ("disconnects", "Sessions that ended while they held something.", "disconnects"),
        ):
            counted = CounterMetricFamily(f"coordinator_{name}", text, labels=("service",))
            for service, total in totals.items():
                counted.add_metric((self._name(service),), getattr(total, which))
            yield counted
        held = GaugeMetricFamily("coordinator_buckets_held", "Held by sessions of this node.", labels=("service",))
        pending = GaugeMetricFamily(
            "coordinator_buckets_pending", "Asked for by sessions of this node and not there.", labels=("service",)
        )
        in_hand: dict[ServiceId, int] = {}
        for one in self._registry.all_held():
            in_hand[one.service_id] = in_hand.get(one.service_id, 0) + 1
        demand = self._grant.demand()
        for entry in self._catalogue.all():
            name = entry.service.name
            held.add_metric((name,), in_hand.get(entry.service.service_id, 0))
            pending.add_metric((name,), demand.get(name, (0, 0))[0])
        yield held
        yield pending
        yield self._histogram("coordinator_bucket_wait_seconds", "From an ask to its bucket.", self._waits.bucket)
        yield self._histogram("coordinator_store_seconds", "From a submit to its commit.", self._waits.stored)

    def _of_database(self) -> Iterator[Metric]:
        load = self._database.load.snapshot()
        for name, text, which in (
            ("calls", "How often this node ran a statement.", "calls"),
            ("rows", "Rows that a statement returned or changed.", "rows"),
            ("seconds", "How long this node waited for a statement.", "seconds"),
        ):
            counted = CounterMetricFamily(f"coordinator_statement_{name}", text, labels=("statement",))
            for one in load.statements:
                counted.add_metric((one.statement,), getattr(one, which))
            yield counted
        waits = "How often all connections were taken."
        yield CounterMetricFamily("coordinator_pool_waits", waits, value=load.pool_waits)
        waited = "How long this node waited for a connection."
        yield CounterMetricFamily("coordinator_pool_wait_seconds", waited, value=load.pool_seconds)

    def _of_whole(self, whole: Whole) -> Iterator[Metric]:
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
            state = whole.states.get(service) or ServiceTotals(0, 0, 0)
            for one in ("waiting", "ready", "claimed", "dead", "settled", "quarantined"):
                items.add_metric((name, one), getattr(state, one))
            for one, count in state.buckets.items():
                buckets.add_metric((name, one), count)
            since = min((one.since for one in state.oldest.values()), default=now)
            oldest.add_metric((name,), max(0.0, (now - since).total_seconds()))
            for found in ("watched", "flagged"):
                unwell.add_metric((name, found), whole.unwell.get((service, found), 0))
        yield from (items, buckets, oldest, unwell)
        clients = GaugeMetricFamily("coordinator_clients", "Clients by what can be said of them.", labels=("state",))
        for one in ("registered", "connected", "active", "watched", "flagged", "deactivated"):
            clients.add_metric((one,), getattr(whole.clients, one))
        yield clients

    def _histogram(self, name: str, text: str, durations: Histogram) -> Metric:
        family = HistogramMetricFamily(name, text, labels=("service",))
        for service, total in durations.sums().items():
            family.add_metric((self._name(service),), durations.up_to(service), total)
        return family

    def _name(self, service: ServiceId) -> str:
        return self._catalogue.name_of(service) or str(service)


async def _whole(db: Connection) -> Whole:
    states = await statistics.state(db)
    await statistics.add_fronts(db, states)
    return Whole(states, await count_clients(db), await health.unwell(db))
