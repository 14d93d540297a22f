"""The work of clients, counted in memory and added to the database once a second.

It is shown, and the rules of health go by it; a crash loses at most the last second of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

from coordinator.model import ClientId, ServiceId
from coordinator.observe.health import GOOD_BUCKETS_TO_RECOVER
from coordinator.store import boards, health, history
from coordinator.store.health import MembershipFigures, WorkCounts
from coordinator.store.pool import Database

MembershipKey = tuple[ClientId, ServiceId]


@dataclass(slots=True)
class ServiceCounters:
    """Counts of one service."""

    assigned: int = 0
    processed: int = 0
    settled: int = 0
    bad_submits: int = 0
    given_back: int = 0
    dead: int = 0
    disconnects: int = 0

    def add(self, other: ServiceCounters) -> None:
        """Add other counts of the same service."""
        self.assigned += other.assigned
        self.processed += other.processed
        self.settled += other.settled
        self.bad_submits += other.bad_submits
        self.given_back += other.given_back
        self.dead += other.dead
        self.disconnects += other.disconnects

    def history(self) -> history.Counts:
        """Return the counts that the history keeps, which are not those of buckets that were only handed out."""
        return (self.settled, self.processed, self.given_back, self.dead, self.disconnects, self.bad_submits)


Totals = defaultdict[ServiceId, ServiceCounters]


@dataclass(frozen=True, slots=True)
class _Flush:
    """Counts on their way into the database, under a number of their own."""

    number: int
    counts: Mapping[MembershipKey, WorkCounts]
    labels: Counter[tuple[ServiceId, ClientId, str]]
    losses: Totals


class ClientCounters:
    """Counts for each client and service, and for each service, since the last flush."""

    def __init__(self) -> None:
        self._flusher = uuid4()
        self._flushes = 0
        self._unanswered: _Flush | None = None
        self._flushing = asyncio.Lock()
        self._counts: dict[MembershipKey, WorkCounts] = {}
        self._labels: Counter[tuple[ServiceId, ClientId, str]] = Counter()
        self._losses: Totals = defaultdict(ServiceCounters)
        """Given back, dead and cut off: the statement that takes the bucket counts them for the client."""
        self._known: dict[MembershipKey, MembershipFigures] = {}
        self.items = 0
        """Items settled through this node since it started."""
        self.submits = 0
        """Submits stored through this node since it started."""
        self.totals: Totals = defaultdict(ServiceCounters)
        """Counts of each service since this node started, up to the last flush."""

    def _of(self, client: ClientId, service: ServiceId) -> WorkCounts:
        key = client, service
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = WorkCounts()
        return count

    # Work of clients

    def assigned(self, client: ClientId, service: ServiceId) -> None:
        """Count a bucket that went to the client."""
        count = self._of(client, service)
        count.worked = True
        count.assigned += 1

    def stored(
        self,
        client: ClientId,
        service: ServiceId,
        items: int,
        *,
        whole: bool = False,
        seconds: float | None = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        """Count a submit of the client that was stored.

        `whole`: nothing of its bucket is left; `seconds` (None: not known here) went into its items; `labels` are the
        kinds of its results.
        """
        count = self._of(client, service)
        count.worked = True
        count.processed += 1
        count.refused = 0
        self.submits += 1

        if items:
            count.settled += items
            count.hoarded = 0
            self.items += items
        if whole:
            count.finished += 1

        if seconds is not None:
            count.seconds += seconds
            count.paced += items
        for label, times in (labels or {}).items():
            self._labels[service, client, label] += times

    def refused(self, client: ClientId, service: ServiceId) -> None:
        """Count a submit of the client that was refused for what was in it."""
        count = self._of(client, service)
        count.worked = True
        count.bad_submits += 1
        count.refused += 1
        count.finished = 0

    def hoarded(self, client: ClientId, service: ServiceId) -> None:
        """Count an ask of the client for more, while all that it held had lain untouched for long."""
        self._of(client, service).hoarded += 1

    def look(self, client: ClientId, service: ServiceId) -> None:
        """Let the rules see the client after the next flush: something of it was counted elsewhere."""
        self._of(client, service)

    # Losses, for the history

    def given_back(self, service: ServiceId) -> None:
        """Count a bucket that a client returned."""
        self._losses[service].given_back += 1

    def dead(self, service: ServiceId) -> None:
        """Count a bucket that was held too long and taken back."""
        self._losses[service].dead += 1

    def disconnected(self, service: ServiceId) -> None:
        """Count a session that ended while it held something."""
        self._losses[service].disconnects += 1

    # Reading

    def settled_items(self) -> int:
        """Return how many items were settled through this node since it started."""
        return self.items

    def take_flushed(self) -> dict[MembershipKey, MembershipFigures]:
        """Return the figures of the clients that were flushed since the last call."""
        known, self._known = self._known, {}
        return known

    # Writing

    async def flush(self, database: Database) -> None:
        """Add the counts to the database; of calls at the same time one is under way, for a flush counts once.

        Raises:
            Unavailable: it is not known whether they were added; the next flush sends them again, and they count once.
        """
        async with self._flushing:
            await self._flush(database)

    async def _flush(self, database: Database) -> None:
        if self._unanswered is None:
            if not (self._counts or self._losses):
                return
            self._flushes += 1
            self._unanswered = _Flush(self._flushes, self._counts, self._labels, self._losses)
            self._counts, self._labels, self._losses = {}, Counter(), defaultdict(ServiceCounters)

        flush = self._unanswered
        by_service = _by_service(flush.counts, flush.losses)
        known = await self._write(database, flush, by_service)

        self._unanswered = None
        self._known.update({(figures.client_id, figures.service_id): figures for figures in known})
        for service, totals in by_service.items():
            self.totals[service].add(totals)

    async def _write(
        self, database: Database, flush: _Flush, by_service: Mapping[ServiceId, ServiceCounters]
    ) -> list[MembershipFigures]:
        """Add all counts of a flush in one transaction, once; returns the figures of the clients that were counted."""
        steps = [(service, totals.history()) for service, totals in by_service.items() if any(totals.history())]
        days = [(client, service, count.settled) for (client, service), count in flush.counts.items() if count.settled]

        async with database.transaction() as db:
            if not await history.begin_flush(db, self._flusher, flush.number):
                return []
            known = await health.count(db, flush.counts, GOOD_BUCKETS_TO_RECOVER)
            if flush.labels:
                await health.count_labels(db, [(*key, times) for key, times in flush.labels.items()])
            if days:
                await boards.add_days(db, days)
            # Last, since all nodes add to the same rows, and wait for each other until the commit.
            if flush.labels:
                await history.add_kinds(
                    db, [(service, label, times) for (service, _, label), times in flush.labels.items()]
                )
            if steps:
                await history.add(db, steps)
        return known


def _by_service(counts: Mapping[MembershipKey, WorkCounts], losses: Mapping[ServiceId, ServiceCounters]) -> Totals:
    sums: Totals = defaultdict(ServiceCounters)
    for (_, service), count in counts.items():
        sums[service].add(ServiceCounters(count.assigned, count.processed, count.settled, count.bad_submits))
    for service, lost in losses.items():
        sums[service].add(lost)
    return sums
