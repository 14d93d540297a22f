"""What was settled in each of the last seconds, on all nodes, as the database has it."""

from __future__ import annotations

from math import inf
from time import monotonic

from coordinator.model import ServiceId
from coordinator.store import history
from coordinator.store.pool import Connection

SECONDS = 300
"""How far it reaches back."""

OVER = 10
"""Seconds over which a rate is taken."""

OVERLAP = 5.0
"""Seconds that are read again each time: nodes may still add to the newest ones, or be late."""


class Throughput:
    """The last seconds, up to the last one that is whole."""

    def __init__(self) -> None:
        self._upto = 0
        self._looked = -inf
        self._seconds: dict[int, dict[ServiceId | None, tuple[int, int]]] = {}
        """By second and service; None has the sum of all."""

    @property
    def minute(self) -> int:
        """The running minute, in minutes since 1970."""
        return (self._upto + 1) // 60

    async def look(self, db: Connection) -> None:
        """Read what has come since the last time."""
        # By this process's clock, which may go wrong, but not by seconds while nobody looks.
        looked = monotonic()
        now, found = await history.seconds(db, min(SECONDS, looked - self._looked) + OVERLAP)
        self._looked = looked
        # A second is added by half past it; the one before the running one is whole.
        self._upto = int(now) - 1
        for one in found:
            self._seconds.setdefault(one.at, {})[one.service_id] = (one.settled, one.submits)
        for at in {one.at for one in found}:
            parts = [both for service, both in self._seconds[at].items() if service is not None]
            self._seconds[at][None] = (sum(one[0] for one in parts), sum(one[1] for one in parts))
        for at in [at for at in self._seconds if at <= self._upto - SECONDS]:
            del self._seconds[at]

    def items(self, service: ServiceId | None) -> float:
        """Items settled per second, lately, in a service or in all."""
        return sum(self.recent(service, OVER)) / OVER

    def buckets(self, service: ServiceId | None) -> float:
        """The same for submits that were stored."""
        return sum(self._of(at, service, 1) for at in range(self._upto - OVER + 1, self._upto + 1)) / OVER

    def recent(self, service: ServiceId | None, last: int = SECONDS) -> list[int]:
        """Items settled in each of the last seconds, the newest last."""
        return [self._of(at, service, 0) for at in range(self._upto - last + 1, self._upto + 1)]

    def _of(self, at: int, service: ServiceId | None, which: int) -> int:
        second = self._seconds.get(at)
        return 0 if second is None else second.get(service, (0, 0))[which]
