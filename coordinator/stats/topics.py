"""The topics of the stats channel: computed when somebody watches, and then once for all who watch.

Each query pauses as long as its cost demands.  Nothing here is asked while nobody watches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.wait_view import WaitView
from coordinator.model import ClientId, ServiceId
from coordinator.observe.node_load import Pending, PendingBuckets
from coordinator.stats import rows
from coordinator.stats.cached_query import SHORT_PAUSE_FACTOR, CachedQuery
from coordinator.stats.database_rates import DatabaseRates
from coordinator.stats.eta import ETA_MINUTES, eta, latest_eta, rates
from coordinator.stats.throughput import Throughput
from coordinator.store import buckets, events, history, nodes, people, statistics
from coordinator.store.pool import Connection
from coordinator.store.statistics import ServiceTotals
from coordinator.wire import stats as wire
from coordinator.wire.paging import MAX_ROW_NUMBER
from coordinator.wire.stats_clients import ClientRow

SLOW_CHANGE_PAUSE = 5.0
"""Seconds between two queries of what changes by the minute."""

SERVICES_APART = 8
"""Services whose items of the last seconds are told apart: so many can be told from each other in a chart."""

S = TypeVar("S", bound=Struct)


class Topics:
    """Computes what the snapshots of each topic hold."""

    def __init__(self, core: Core, grant: Grant, database_rates: DatabaseRates, wait_view: WaitView) -> None:
        self._catalogue = core.catalogue
        self._grant = grant
        self._wait_view = wait_view
        self._boot = core.boot
        self._throughput = Throughput()

        database = core.database
        self._totals = CachedQuery(database, service_totals)
        self._people = CachedQuery(database, people.count_clients)
        self._nodes = CachedQuery(database, _running_nodes, pause_factor=SHORT_PAUSE_FACTOR)
        self._seconds = CachedQuery(database, self._throughput.refresh, pause_factor=SHORT_PAUSE_FACTOR)
        self._minutes = CachedQuery(database, _active_minutes, SLOW_CHANGE_PAUSE)
        self._faults = CachedQuery(database, events.faults, SLOW_CHANGE_PAUSE)
        self._events = CachedQuery(database, _newest_events, pause_factor=SHORT_PAUSE_FACTOR)
        self._clients = CachedQuery(database, self._first_clients, pause_factor=SHORT_PAUSE_FACTOR)
        self._buckets = CachedQuery(database, self._first_buckets)

        self.by_name: dict[str, Callable[[], Awaitable[Struct]]] = {
            "overview": self.overview,
            "services": self.services,
            "clients": self.clients,
            "buckets": self.buckets,
            "nodes": self.nodes,
            "database": database_rates.load,
            "events": self.events,
        }

    # Overview

    async def overview(self) -> wire.Overview:
        """Compute topic `overview`."""
        await self._seconds.get()
        services = await self.service_rows()
        counted = await self._people.get()
        running = await self._nodes.get()

        return wire.Overview(
            items=_sum(wire.Items, [service.items for service in services]),
            buckets=_sum(wire.Buckets, [service.buckets for service in services]),
            items_per_second=self._throughput.items(None),
            buckets_per_second=self._throughput.submits(None),
            recent=self._throughput.recent_items(None),
            recent_by_service={
                name: items
                for service, items in self._throughput.busiest(SERVICES_APART)
                if (name := self._catalogue.name_of(service)) is not None
            },
            eta=latest_eta(services),
            demand=wire.DemandCounts(
                pending=sum(service.demand.pending for service in services),
                clients=sum(service.demand.clients for service in services),
                active=counted.active,
                reasons=_sum_reasons([service.demand.reasons for service in services]),
            ),
            clients=rows.filled(wire.ClientCounts, counted),
            nodes=len(running),
            faults=await self._faults.get(),
            database_delay=max((node.row.database_delay for node in running), default=0.0),
        )

    # Services

    async def services(self) -> wire.FirstRows:
        """Compute topic `services`."""
        found = await self.service_rows()
        return wire.FirstRows(len(found), list(found[: wire.FIRST_ROWS]))

    async def service_rows(self) -> list[wire.ServiceRow]:
        """Return all services, by name."""
        all_totals = await self._totals.get()
        counted = await self._people.get()
        minutes = await self._minutes.get()
        pending = await self._pending()
        await self._seconds.get()

        found = []
        for entry in sorted(self._catalogue.all(), key=lambda entry: entry.service.name):
            service = entry.service.service_id
            asked = pending.get(entry.service.name, PendingBuckets())
            active = counted.active_in.get(service, 0)
            demand = wire.DemandCounts(asked.buckets, asked.clients, active, asked.reasons)
            totals = all_totals.get(service) or ServiceTotals(0, 0, 0)
            found.append(self._service_row(entry, totals, demand, minutes.get(service, [])))
        return found

    def _service_row(
        self, entry: Entry, totals: ServiceTotals, demand: wire.DemandCounts, minutes: Sequence[tuple[int, int]]
    ) -> wire.ServiceRow:
        service, throughput = entry.service, self._throughput
        pace = rates(minutes, throughput.minute, throughput.recent_items(service.service_id, 60))
        return rows.service_row(service, totals, demand, throughput.items(service.service_id), eta(totals.left, pace))

    async def _pending(self) -> Pending:
        """Buckets asked for on all nodes, by service: of this node as it is now, of the others as they told last."""
        found = self._grant.demand()
        for node in await self._nodes.get():
            if node.row.boot == self._boot:
                continue
            for service, pending in node.pending.items():
                found[service] = found.get(service, PendingBuckets()).plus(pending)
        return found

    # The first rows of the long tables

    async def clients(self) -> wire.FirstRows:
        """Compute topic `clients`: those that settled most."""
        counted = await self._people.get()
        return wire.FirstRows(counted.registered, list(await self._clients.get()))

    async def buckets(self) -> wire.FirstRows:
        """Compute topic `buckets`: open ones, those that are held longest first."""
        all_totals = await self._totals.get()
        found = await self._buckets.get()
        total = sum(sum(totals.buckets.values()) for totals in all_totals.values())
        return wire.FirstRows(max(len(found), total), list(found))

    async def nodes(self) -> wire.FirstRows:
        """Compute topic `nodes`: those that run."""
        found = await self._nodes.get()
        return wire.FirstRows(len(found), [node.row for node in found[: wire.FIRST_ROWS]])

    async def events(self) -> wire.FirstRows:
        """Compute topic `events`: the newest."""
        total, found = await self._events.get()
        return wire.FirstRows(total, list(found))

    async def _first_clients(self, db: Connection) -> list[ClientRow]:
        found, _ = await people.page(db, people.ClientFilter(), "settled", None, wire.FIRST_ROWS)
        waits = await self._wait_view.of(db, [ClientId(row["client_id"]) for row in found])
        return [rows.client_row(row, self._catalogue, waits) for row in found]

    async def _first_buckets(self, db: Connection) -> list[wire.BucketRow]:
        found = await buckets.open_page(db, None, wire.FIRST_ROWS)
        return [rows.bucket_row(row, self._catalogue) for row in found]


async def service_totals(db: Connection) -> dict[ServiceId, ServiceTotals]:
    """Return every service with its counts and with what waits longest, also of what is in no bucket."""
    all_totals = await statistics.state(db)
    await statistics.add_fronts(db, all_totals)
    return all_totals


async def _running_nodes(db: Connection) -> list[rows.NodeReport]:
    return [rows.node_report(row) for row in await nodes.running(db)]


async def _active_minutes(db: Connection) -> dict[ServiceId, list[tuple[int, int]]]:
    # The running minute and those in which work began or ended do not count.
    return await history.active_minutes(db, ETA_MINUTES + 3)


async def _newest_events(db: Connection) -> tuple[int, list[wire.EventRow]]:
    _, total = await events.reach(db)
    found = await events.page(db, MAX_ROW_NUMBER, wire.FIRST_ROWS)
    return total, [rows.event_row(row) for row in found]


def _sum(kind: type[S], parts: Sequence[S]) -> S:
    """Add up structs of numbers, field by field."""
    return kind(**{name: sum(getattr(part, name) for part in parts) for name in kind.__struct_fields__})


def _sum_reasons(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add up the buckets that are asked for, reason by reason."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part)
    return dict(counts)
