"""Items and submits of each of the last seconds, on all nodes, as the database has them."""

from __future__ import annotations

from collections import Counter
from math import inf
from time import monotonic
from typing import NamedTuple

from coordinator.model import ServiceId
from coordinator.store import history
from coordinator.store.pool import Connection

SECONDS_KEPT = 300
"""Seconds of the past that are known."""

ITEM_RATE_SECONDS = 10
"""Seconds over which a rate is taken."""

SECONDS_READ_AGAIN = 5.0
"""Seconds that are read again each time: nodes may still add to the newest ones, or be late."""


class SecondCounts(NamedTuple):
    """Work done in one second."""

    items: int
    submits: int


_NOTHING = SecondCounts(0, 0)


class Throughput:
    """The last seconds, up to the last one that is whole."""

    def __init__(self) -> None:
        self._last_second = 0
        self._read_at = -inf
        self._seconds: dict[int, dict[ServiceId | None, SecondCounts]] = {}
        """By second and service; None has the sum of all."""

    @property
    def minute(self) -> int:
        """The running minute, in minutes since 1970."""
        return (self._last_second + 1) // 60

    async def refresh(self, db: Connection) -> None:
        """Read what has come since the last time."""
        # By this process's clock, which may go wrong, but not by seconds while nobody watches.
        now = monotonic()
        database_time, found = await history.seconds(db, min(SECONDS_KEPT, now - self._read_at) + SECONDS_READ_AGAIN)
        self._read_at = now

        # A second is added by half past it; the one before the running one is whole.
        self._last_second = int(database_time) - 1
        for second in found:
            self._seconds.setdefault(second.at, {})[second.service_id] = SecondCounts(second.settled, second.submits)

        for at in {second.at for second in found}:
            services = [counts for service, counts in self._seconds[at].items() if service is not None]
            self._seconds[at][None] = SecondCounts(
                sum(one.items for one in services), sum(one.submits for one in services)
            )

        for at in [at for at in self._seconds if at <= self._last_second - SECONDS_KEPT]:
            del self._seconds[at]

    def items(self, service: ServiceId | None) -> float:
        """Return the items settled per second, lately, in a service or in all."""
        return sum(one.items for one in self._last(service, ITEM_RATE_SECONDS)) / ITEM_RATE_SECONDS

    def submits(self, service: ServiceId | None) -> float:
        """Return the submits stored per second, lately, in a service or in all."""
        return sum(one.submits for one in self._last(service, ITEM_RATE_SECONDS)) / ITEM_RATE_SECONDS

    def recent_items(self, service: ServiceId | None, seconds: int = SECONDS_KEPT) -> list[int]:
        """Return the items settled in each of the last seconds, the newest last."""
        return [one.items for one in self._last(service, seconds)]

    def busiest(self, most: int) -> list[tuple[ServiceId, list[int]]]:
        """Return the services in which most items were settled, the busiest first, with the items of each second."""
        settled: Counter[ServiceId] = Counter()
        for services in self._seconds.values():
            settled.update({service: one.items for service, one in services.items() if service is not None})
        return [(service, self.recent_items(service)) for service, items in settled.most_common(most) if items]

    def _last(self, service: ServiceId | None, seconds: int) -> list[SecondCounts]:
        """The last seconds, the newest last."""
        ends = range(self._last_second - seconds + 1, self._last_second + 1)
        return [self._seconds.get(at, {}).get(service, _NOTHING) for at in ends]
