"""Looks after the health of clients: what was counted goes to the rules, and what they find is kept and told.

Any node may find it, for the clients that it counted something of.  What got worse is found with the next look; what
needs the others to compare with, and what got better, within seconds.
"""

from __future__ import annotations

from collections import defaultdict
from time import monotonic

import structlog

from coordinator.flow.catalogue import Catalogue
from coordinator.flow.client_counters import ClientCounters, Key
from coordinator.flow.signals import Signals
from coordinator.model import ClientId, ServiceId
from coordinator.observe.events import Events
from coordinator.observe.health import LABELLED, Hour, Others, Record, Verdict, judge, pace, worse
from coordinator.store import activity
from coordinator.store import health as store
from coordinator.store.health import MembershipFigures, PeerFigures
from coordinator.store.pool import Connection, Database

log = structlog.get_logger()

COMPARE = 3.0
"""Seconds between two comparisons with the others, which read some thousand rows at most."""

TIDY = 600.0
"""Seconds between two looks for kinds of results to forget."""


class HealthMonitor:
    """Finds clients that do harm, and those that do no more."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        counters: ClientCounters,
        signals: Signals,
        who: str,
        events: Events,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._counters = counters
        self._signals = signals
        self._who = who
        self._events = events
        self._compared = self._tidied = monotonic()
        self._waiting: dict[Key, MembershipFigures] = {}
        """What is known of clients that are still to be compared with the others."""

    async def look(self) -> None:
        """Judge the clients that something was counted of.

        Raises:
            Unavailable: the database is away; they are judged when they do something again.
        """
        known = self._counters.known()
        for figures in known.values():
            await self._judge(figures, Others(), only_worse=True)
        self._waiting |= known
        now = monotonic()
        if now >= self._compared + COMPARE:
            self._compared = now
            await self._compare()
        if now >= self._tidied + TIDY:
            self._tidied = now
            async with self._database.connection() as db:
                await store.forget_labels(db, [entry.service.service_id for entry in self._catalogue.all()])

    async def _compare(self) -> None:
        by_service: defaultdict[ServiceId, list[MembershipFigures]] = defaultdict(list)
        for figures in self._waiting.values():
            by_service[figures.service_id].append(figures)
        self._waiting.clear()
        for service, all_figures in by_service.items():
            async with self._database.connection() as db:
                peers = await store.peers(db, service, [one.client_id for one in all_figures])
            for figures in all_figures:
                await self._judge(figures, _others(peers, figures.client_id), only_worse=False)

    async def _judge(self, figures: MembershipFigures, others: Others, *, only_worse: bool) -> None:
        before = Verdict(figures.health, figures.health_reason)
        found = judge(_record(figures), others, before)
        if found.state == before.state or (only_worse and not worse(found, before)):
            return
        async with self._database.transaction() as db:
            if not await self._note(db, figures, found):
                return
        what = found.state if found.reason is None else f"{found.state}: {found.reason}"
        service = self._catalogue.name_of(figures.service_id)
        self._events.emit("health", what, client=figures.client_id, service=service)
        log.info("health changed", client=figures.client_id, service=service, health=found.state, reason=found.reason)
        self._signals.tell("client", client=figures.client_id)

    async def _note(self, db: Connection, figures: MembershipFigures, found: Verdict) -> bool:
        client, service = figures.client_id, figures.service_id
        if not await store.set_health(db, client, service, found.state, found.reason, figures.health):
            return False
        outcome = ": ".join(filter(None, (self._catalogue.name_of(service), found.state, found.reason)))
        await activity.note(db, self._who, "client.health", client, outcome)
        return True


def _record(figures: MembershipFigures) -> Record:
    return Record(
        well=figures.well,
        died=figures.died,
        asked_on=figures.asked_on,
        hoarded=figures.hoarded,
        refused=figures.refused,
        returned=figures.returned,
        seconds=figures.seconds,
        paced=figures.paced,
    )


def _others(peers: PeerFigures, client: ClientId) -> Others:
    paces = [pace(*one) for other, one in peers.paces.items() if other != client]
    hours = []
    for by_client in peers.labels.values():
        if client in by_client:
            others = [
                labels
                for other, labels in by_client.items()
                if other != client and other in peers.paces and sum(labels.values()) >= LABELLED
            ]
            hours.append(Hour(by_client[client], others))
    return Others([one for one in paces if one is not None], hours)
