"""What clients did, counted in memory and added to the database once a second.

Shown, and looked at by the rules of health; a crash loses at most the last second of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.model import ClientId, ServiceId
from coordinator.observe.health import WELL
from coordinator.store import health, history
from coordinator.store.health import MembershipFigures, WorkCounts
from coordinator.store.pool import Database

Key = tuple[ClientId, ServiceId]


@dataclass(slots=True)
class Total:
    """What was counted for one service."""

    assigned: int = 0
    processed: int = 0
    settled: int = 0
    bad_submits: int = 0
    given_back: int = 0
    dead: int = 0
    disconnects: int = 0


class ClientCounters:
    """Counts for each client and service, and for each service, since the last flush."""

    def __init__(self) -> None:
        self._counts: dict[Key, WorkCounts] = {}
        self._labels: Counter[tuple[ServiceId, ClientId, str]] = Counter()
        self._losses: defaultdict[ServiceId, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._known: dict[Key, MembershipFigures] = {}
        self.items = 0
        """Items settled through this node since it started."""
        self.totals: defaultdict[ServiceId, Total] = defaultdict(Total)
        """What was counted for each service since this node started, up to the last flush."""
        self.submits = 0
        """Submits stored through it."""

    def _of(self, client: ClientId, service: ServiceId) -> WorkCounts:
        key = client, service
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = WorkCounts()
        return found

    def assigned(self, client: ClientId, service: ServiceId) -> None:
        """A bucket went to the client."""
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
        """A submit of the client was stored.

        `whole`: nothing of its bucket is left; `seconds` (None: not known here) went into its items; `labels` are the
        kinds of its results.
        """
        count = self._of(client, service)
        count.worked = True
        count.processed += 1
        self.submits += 1
        count.refused = 0
        if items:
            count.settled += items
            self.items += items
            count.hoarded = 0
        if whole:
            count.finished += 1
        if seconds is not None:
            count.seconds += seconds
            count.paced += items
        for label, n in (labels or {}).items():
            self._labels[service, client, label] += n

    def refused(self, client: ClientId, service: ServiceId) -> None:
        """A submit of the client was refused for what was in it."""
        count = self._of(client, service)
        count.worked = True
        count.bad_submits += 1
        count.refused += 1
        count.finished = 0

    def hoarded(self, client: ClientId, service: ServiceId) -> None:
        """The client asked for more while all that it held had lain untouched for long."""
        self._of(client, service).hoarded += 1

    def look(self, client: ClientId, service: ServiceId) -> None:
        """Something of the client was counted elsewhere: look at it with the next flush."""
        self._of(client, service)

    # What the client pays for is counted by the statement that takes the bucket; here it is for the history.

    def given_back(self, service: ServiceId) -> None:
        """A client returned a bucket."""
        self._losses[service][0] += 1

    def dead(self, service: ServiceId) -> None:
        """A bucket that was held too long was taken back."""
        self._losses[service][1] += 1

    def disconnected(self, service: ServiceId) -> None:
        """A session ended while it held something."""
        self._losses[service][2] += 1

    def known(self) -> dict[Key, MembershipFigures]:
        """What is known of the clients that were flushed since this was last asked."""
        known, self._known = self._known, {}
        return known

    async def flush(self, database: Database) -> None:
        """Add what was counted.

        Raises:
            Unavailable: the database is away; the counts are kept.
        """
        if not (self._counts or self._losses):
            return
        counts, self._counts = self._counts, {}
        losses, self._losses = self._losses, defaultdict(lambda: [0, 0, 0])
        steps, days = _steps(counts, losses), _days(counts)
        labels, self._labels = self._labels, Counter()
        try:
            async with database.transaction() as db:
                known = await health.count(db, counts, WELL)
                if labels:
                    await health.count_labels(db, [(*key, n) for key, n in labels.items()])
                if steps:
                    await history.add(db, steps)
                if days:
                    await history.add_days(db, days)
        except BaseException:
            for key, count in counts.items():
                later = self._counts.get(key)
                self._counts[key] = count if later is None else count.then(later)
            self._labels.update(labels)
            for service, lost in losses.items():
                self._losses[service] = [a + b for a, b in zip(self._losses[service], lost, strict=True)]
            raise
        self._known.update({(one.client_id, one.service_id): one for one in known})
        self._add(counts, losses)

    def _add(self, counts: Mapping[Key, WorkCounts], losses: Mapping[ServiceId, list[int]]) -> None:
        for (_, service), count in counts.items():
            total = self.totals[service]
            total.assigned += count.assigned
            total.processed += count.processed
            total.settled += count.settled
            total.bad_submits += count.bad_submits
        for service, (given_back, dead, disconnects) in losses.items():
            total = self.totals[service]
            total.given_back += given_back
            total.dead += dead
            total.disconnects += disconnects


def _steps(
    counts: Mapping[Key, WorkCounts], losses: Mapping[ServiceId, list[int]]
) -> list[tuple[ServiceId, history.Counts]]:
    """What the history is told of each service; nothing of buckets that were only handed out."""
    sums: defaultdict[ServiceId, list[int]] = defaultdict(lambda: [0, 0, 0])
    for (_, service), count in counts.items():
        for place, number in enumerate((count.settled, count.processed, count.bad_submits)):
            sums[service][place] += number
    found = []
    for service in sums.keys() | losses.keys():
        settled, buckets, bad = sums.get(service, (0, 0, 0))
        given_back, dead, disconnects = losses.get(service, (0, 0, 0))
        if settled or buckets or bad or given_back or dead or disconnects:
            found.append((service, (settled, buckets, given_back, dead, disconnects, bad)))
    return found


def _days(counts: Mapping[Key, WorkCounts]) -> list[tuple[str, int, int]]:
    return [(client, service, count.settled) for (client, service), count in counts.items() if count.settled]
