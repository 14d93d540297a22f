"""What clients did, counted in memory and added to the database now and then.

Shown, never decided upon; a crash loses at most the last second of it.
"""

from __future__ import annotations

from collections import defaultdict

from coordinator.model import ClientId, ServiceId
from coordinator.store import clients
from coordinator.store.pool import Database


class Tally:
    """Counts for each client and service since the last flush."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[ClientId, ServiceId], list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def assigned(self, client: ClientId, service: ServiceId) -> None:
        """A bucket went to the client."""
        self._counts[client, service][0] += 1

    def stored(self, client: ClientId, service: ServiceId, items: int) -> None:
        """A submit of the client was stored."""
        counts = self._counts[client, service]
        counts[1] += 1
        counts[2] += items

    def refused(self, client: ClientId, service: ServiceId) -> None:
        """A submit of the client was refused for what was in it."""
        self._counts[client, service][3] += 1

    async def flush(self, database: Database) -> None:
        """Add what was counted.

        Raises:
            Unavailable: the database is away; the counts are kept.
        """
        if not self._counts:
            return
        counts, self._counts = self._counts, defaultdict(lambda: [0, 0, 0, 0])
        try:
            async with database.connection() as db:
                await clients.count(
                    db,
                    [(client, service, *numbers) for (client, service), numbers in counts.items()],  # type: ignore[misc]  # four numbers
                )
        except BaseException:
            for key, numbers in counts.items():
                self._counts[key] = [a + b for a, b in zip(self._counts[key], numbers, strict=True)]
            raise
