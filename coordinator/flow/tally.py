"""What clients did, counted in memory and added to the database once a second.

Shown, never decided upon; a crash loses at most the last second of it.
"""

from __future__ import annotations

from collections import defaultdict

from coordinator.model import ClientId, ServiceId
from coordinator.store import clients, history
from coordinator.store.pool import Database


class Tally:
    """Counts for each client and service, and for each service, since the last flush."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[ClientId, ServiceId], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self._losses: defaultdict[ServiceId, list[int]] = defaultdict(lambda: [0, 0, 0])
        self.items = 0
        """Items settled through this node since it started."""

    def assigned(self, client: ClientId, service: ServiceId) -> None:
        """A bucket went to the client."""
        self._counts[client, service][0] += 1

    def stored(self, client: ClientId, service: ServiceId, items: int) -> None:
        """A submit of the client was stored."""
        counts = self._counts[client, service]
        counts[1] += 1
        counts[2] += items
        self.items += items

    def refused(self, client: ClientId, service: ServiceId) -> None:
        """A submit of the client was refused for what was in it."""
        self._counts[client, service][3] += 1

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

    async def flush(self, database: Database) -> None:
        """Add what was counted.

        Raises:
            Unavailable: the database is away; the counts are kept.
        """
        if not (self._counts or self._losses):
            return
        counts, self._counts = self._counts, defaultdict(lambda: [0, 0, 0, 0])
        losses, self._losses = self._losses, defaultdict(lambda: [0, 0, 0])
        steps, days = _steps(counts, losses), _days(counts)
        try:
            async with database.transaction() as db:
                await clients.count(
                    db,
                    [(client, service, *numbers) for (client, service), numbers in counts.items()],  # type: ignore[misc]  # four numbers
                )
                if steps:
                    await history.add(db, steps)
                if days:
                    await history.add_days(db, days)
        except BaseException:
            for key, numbers in counts.items():
                self._counts[key] = [a + b for a, b in zip(self._counts[key], numbers, strict=True)]
            for service, lost in losses.items():
                self._losses[service] = [a + b for a, b in zip(self._losses[service], lost, strict=True)]
            raise


def _steps(
    counts: dict[tuple[ClientId, ServiceId], list[int]], losses: dict[ServiceId, list[int]]
) -> list[tuple[ServiceId, history.Counts]]:
    """What the history is told of each service; nothing of buckets that were only handed out."""
    sums: defaultdict[ServiceId, list[int]] = defaultdict(lambda: [0, 0, 0])
    for (_, service), (_, processed, settled, bad) in counts.items():
        for place, number in enumerate((settled, processed, bad)):
            sums[service][place] += number
    found = []
    for service in sums.keys() | losses.keys():
        settled, buckets, bad = sums.get(service, (0, 0, 0))
        given_back, dead, disconnects = losses.get(service, (0, 0, 0))
        if settled or buckets or bad or given_back or dead or disconnects:
            found.append((service, (settled, buckets, given_back, dead, disconnects, bad)))
    return found


def _days(counts: dict[tuple[ClientId, ServiceId], list[int]]) -> list[tuple[str, int, int]]:
    return [(client, service, numbers[2]) for (client, service), numbers in counts.items() if numbers[2]]
