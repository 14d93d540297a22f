"""Judges the health of clients: their counts go to the rules, and the verdicts are kept and told.

Each node judges the clients that it counted something of.  What got worse is found with the next flush of the counts;
what needs the others to compare with, and what got better, within seconds.
"""

from __future__ import annotations

from collections import defaultdict
from time import monotonic

import structlog

from coordinator.flow.client_counters import MembershipKey
from coordinator.flow.core import Core
from coordinator.flow.signal_types import ClientChanged
from coordinator.model import ClientId, ServiceId
from coordinator.observe.health import (
    Comparison,
    ResultHour,
    Verdict,
    WorkRecord,
    judge,
    pace,
    worse,
)
from coordinator.store import activity
from coordinator.store import health as store
from coordinator.store.health import MembershipFigures, PeerFigures
from coordinator.store.pool import Connection
from coordinator.wire.stats_events import Severity

log = structlog.get_logger()

COMPARE_INTERVAL = 3.0
"""Seconds between two comparisons with the others, which read some thousand rows at most."""

FORGET_LABELS_INTERVAL = 600.0
"""Seconds between two deletions of kinds of results that are too old to be compared."""


class HealthMonitor:
    """Finds clients that do harm, and those that do it no longer."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._counters = core.counters
        self._signals = core.signals
        self._actor = core.actor
        self._events = core.events
        self._compared = self._forgotten = monotonic()
        self._waiting: dict[MembershipKey, MembershipFigures] = {}
        """Figures of clients that are still to be compared with the others."""

    async def look(self) -> None:
        """Judge the clients that something was counted of.

        Raises:
            Unavailable: the database is away; they are judged when they do something again.
        """
        known = self._counters.take_flushed()
        for figures in known.values():
            await self._judge(figures, Comparison(), only_worse=True)
        self._waiting |= known

        now = monotonic()
        if now >= self._compared + COMPARE_INTERVAL:
            self._compared = now
            await self._compare()

        if now >= self._forgotten + FORGET_LABELS_INTERVAL:
            self._forgotten = now
            async with self._database.connection() as db:
                await store.forget_labels(db, [entry.service.service_id for entry in self._catalogue.all()])

    async def _compare(self) -> None:
        by_service: defaultdict[ServiceId, list[MembershipFigures]] = defaultdict(list)
        for figures in self._waiting.values():
            by_service[figures.service_id].append(figures)
        self._waiting.clear()

        for service, all_figures in by_service.items():
            async with self._database.connection() as db:
                peers = await store.peers(db, service, [figures.client_id for figures in all_figures])
            for figures in all_figures:
                await self._judge(figures, _others(peers, figures.client_id), only_worse=False)

    async def _judge(self, figures: MembershipFigures, others: Comparison, *, only_worse: bool) -> None:
        before = Verdict(figures.health, figures.health_reason)
        found = judge(_record(figures), others, before)
        if found.state == before.state or (only_worse and not worse(found, before)):
            return

        async with self._database.transaction() as db:
            if not await self._note(db, figures, found):
                return

        text = found.state if found.reason is None else f"{found.state}: {found.reason}"
        service = self._catalogue.name_of(figures.service_id)
        severity: Severity = "info" if found.state == "ok" else "warning"
        self._events.emit("health", text, severity, client=figures.client_id, service=service)
        log.info("health changed", client=figures.client_id, service=service, health=found.state, reason=found.reason)
        self._signals.tell(ClientChanged(figures.client_id))

    async def _note(self, db: Connection, figures: MembershipFigures, found: Verdict) -> bool:
        client, service = figures.client_id, figures.service_id
        if not await store.set_health(db, client, service, found.state, found.reason, figures.health):
            return False
        outcome = ": ".join(filter(None, (self._catalogue.name_of(service), found.state, found.reason)))
        await activity.note(db, self._actor, "client.health", client, outcome)
        return True


def _record(figures: MembershipFigures) -> WorkRecord:
    return WorkRecord(
        well=figures.well,
        died=figures.died,
        asked_on=figures.asked_on,
        hoarded=figures.hoarded,
        refused=figures.refused,
        returned=figures.returned,
        seconds=figures.seconds,
        paced=figures.paced,
        standing=figures.standing,
    )


def _others(peers: PeerFigures, client: ClientId) -> Comparison:
    standing = {str(other): items for other, items in peers.standing.items() if other != client}
    paces = {
        str(other): seconds
        for other, worked in peers.paces.items()
        if other != client and (seconds := pace(*worked)) is not None
    }
    hours = [
        ResultHour(by_client[client], {other: labels for other, labels in by_client.items() if other in standing})
        for by_client in peers.labels.values()
        if client in by_client
    ]
    return Comparison(standing, paces, hours, {str(other): block for other, block in peers.blocks.items()})
