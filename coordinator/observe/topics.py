"""What the topics of the stats channel hold: looked up when somebody wants it, and then once for all.

Each look at the database is paced by what it costs.  Nothing here is asked while nobody watches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct

from coordinator.flow.catalogue import Catalogue, Entry
from coordinator.flow.grant import Grant
from coordinator.model import Boot, ServiceId
from coordinator.observe import rows
from coordinator.observe.cached_query import SMALL_SHARE, CachedQuery
from coordinator.observe.database_rates import DatabaseRates
from coordinator.observe.eta import MINUTES, eta, rates
from coordinator.observe.throughput import Throughput
from coordinator.store import buckets, events, history, nodes, people, statistics
from coordinator.store.pool import Connection, Database
from coordinator.store.statistics import ServiceState
from coordinator.wire import stats as wire
from coordinator.wire.paging import time_text

SLOWLY = 5.0
"""Seconds between looks at what changes by the minute."""


class Topics:
    """The topics as they are now."""

    def __init__(
        self, database: Database, catalogue: Catalogue, grant: Grant, boot: Boot, asking: DatabaseRates
    ) -> None:
        self._catalogue = catalogue
        self._grant = grant
        self._boot = boot
        self._throughput = Throughput()
        self._state = CachedQuery(database, _state)
        self._people = CachedQuery(database, people.people)
        self._nodes = CachedQuery(database, nodes.here, share=SMALL_SHARE)
        self._seconds = CachedQuery(database, self._throughput.look, share=SMALL_SHARE)
        self._minutes = CachedQuery(database, lambda db: history.active_minutes(db, MINUTES + 3), SLOWLY)
        self._faults = CachedQuery(database, events.faults, SLOWLY)
        self._events = CachedQuery(database, _newest_events, share=SMALL_SHARE)
        self._clients = CachedQuery(database, _first_clients, share=SMALL_SHARE)
        self._buckets = CachedQuery(database, lambda db: buckets.open_page(db, None, wire.FIRST_ROWS))

        self.by_name: dict[str, Callable[[], Awaitable[Struct]]] = {
            "overview": self.overview,
            "services": self.services,
            "clients": self.clients,
            "buckets": self.buckets,
            "nodes": self.nodes,
            "database": asking.look,
            "events": self.events,
        }

    async def overview(self) -> wire.Overview:
        """Topic `overview`."""
        await self._seconds.get()
        services = await self.service_rows()
        counted = await self._people.get()
        here = await self._nodes.get()
        return wire.Overview(
            items=_sum(wire.Items(), [one.items for one in services]),
            buckets=_sum(wire.Buckets(), [one.buckets for one in services]),
            items_per_second=self._throughput.items(None),
            buckets_per_second=self._throughput.buckets(None),
            recent=self._throughput.recent(None),
            eta=_latest(services),
            demand=wire.Demand(
                pending=sum(one.demand.pending for one in services),
                clients=sum(one.demand.clients for one in services),
                active=counted.active,
            ),
            clients=wire.ClientCounts(
                registered=counted.registered,
                connected=counted.connected,
                active=counted.active,
                watched=counted.watched,
                flagged=counted.flagged,
                deactivated=counted.deactivated,
            ),
            nodes=len(here),
            faults=await self._faults.get(),
        )

    async def services(self) -> wire.Rows:
        """Topic `services`."""
        found = await self.service_rows()
        return wire.Rows(len(found), list(found[: wire.FIRST_ROWS]))

    async def service_rows(self) -> list[wire.ServiceRow]:
        """All services, by name."""
        states = await self._state.get()
        counted = await self._people.get()
        minutes = await self._minutes.get()
        pending = await self._pending()
        await self._seconds.get()
        return [
            self._service_row(
                entry,
                states.get(entry.service.service_id) or ServiceState(0, 0, 0),
                minutes.get(entry.service.service_id, []),
                wire.Demand(
                    *pending.get(entry.service.name, (0, 0)), counted.active_in.get(entry.service.service_id, 0)
                ),
            )
            for entry in sorted(self._catalogue.all(), key=lambda entry: entry.service.name)
        ]

    def _service_row(
        self, entry: Entry, state: ServiceState, minutes: Sequence[tuple[int, int]], demand: wire.Demand
    ) -> wire.ServiceRow:
        service = entry.service
        return wire.ServiceRow(
            service=service.name,
            title=service.title,
            plugin=service.plugin,
            state=service.state,
            items=wire.Items(
                waiting=state.waiting,
                ready=state.ready,
                claimed=state.claimed,
                dead=state.dead,
                settled=state.settled,
                quarantined=state.quarantined,
                total=state.total,
            ),
            buckets=wire.Buckets(**state.buckets),
            items_per_second=self._throughput.items(service.service_id),
            eta=eta(
                state.left, rates(minutes, self._throughput.minute, self._throughput.recent(service.service_id, 60))
            ),
            oldest=[
                wire.Oldest(
                    priority,
                    time_text(one.since),
                    # Nothing that arrives after that can come before it.  protocol.md, "Rank"
                    time_text(one.rank_at + timedelta(seconds=service.settings.max_head_start)),
                )
                for priority, one in sorted(state.oldest.items())
            ],
            demand=demand,
        )

    async def _pending(self) -> dict[str, tuple[int, int]]:
        """What is asked for on all nodes: of this one as it is now, of the others as they said last."""
        found = self._grant.demand()
        for row in await self._nodes.get():
            if row["boot"] != self._boot:
                for service, (pending, clients) in rows.load_of(row).pending.items():
                    before = found.get(service, (0, 0))
                    found[service] = (before[0] + pending, before[1] + clients)
        return found

    async def clients(self) -> wire.Rows:
        """Topic `clients`: those that settled most."""
        counted = await self._people.get()
        found = await self._clients.get()
        return wire.Rows(counted.registered, [rows.client_row(one, self._catalogue) for one in found])

    async def buckets(self) -> wire.Rows:
        """Topic `buckets`: open ones, those that are held longest first."""
        states = await self._state.get()
        found = await self._buckets.get()
        total = max(len(found), sum(sum(one.buckets.values()) for one in states.values()))
        return wire.Rows(total, [rows.bucket_row(one, self._catalogue) for one in found])

    async def nodes(self) -> wire.Rows:
        """Topic `nodes`: those that run."""
        found = await self._nodes.get()
        return wire.Rows(len(found), [rows.node_row(one) for one in found[: wire.FIRST_ROWS]])

    async def events(self) -> wire.Rows:
        """Topic `events`: the newest."""
        total, found = await self._events.get()
        return wire.Rows(total, [rows.event_row(one) for one in found])


async def _state(db: Connection) -> dict[ServiceId, ServiceState]:
    states = await statistics.state(db)
    await statistics.add_fronts(db, states)
    return states


async def _newest_events(db: Connection) -> tuple[int, list[dict[str, Any]]]:
    _, total = await events.reach(db)
    return total, await events.page(db, rows.BEYOND, wire.FIRST_ROWS)


async def _first_clients(db: Connection) -> list[dict[str, Any]]:
    found, _ = await people.page(db, people.Which(), "settled", None, wire.FIRST_ROWS)
    return found


def _sum(into: Any, parts: Sequence[Any]) -> Any:
    """The fields of structs of one kind, added up."""
    for name in into.__struct_fields__:
        setattr(into, name, sum(getattr(one, name) for one in parts))
    return into


def _latest(services: Sequence[wire.ServiceRow]) -> wire.Eta | None:
    """When the last active service that has anything left will be done; None if one of them cannot tell."""
    working = [one for one in services if one.state == "active" and one.eta != wire.Eta(0.0, 0.0)]
    if any(one.eta is None for one in working):
        return None
    known = [one.eta for one in working if one.eta is not None]
    return wire.Eta(max((one.low for one in known), default=0.0), max((one.high for one in known), default=0.0))
