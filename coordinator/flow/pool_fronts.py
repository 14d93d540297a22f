"""The places where the ready pools begin, so that a claim need not pass all that was handed out before.

What was handed out stays in the index until a vacuum, and while a transaction is left open none may remove it: a look
from the beginning then costs more with every claim.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from time import monotonic

from coordinator.errors import Unavailable
from coordinator.model import ServiceId
from coordinator.store.fronts import POOL_START, PoolPlace, find_front
from coordinator.store.pool import Database

LOOK_EVERY = 1.0
"""Seconds between two looks from the beginning of a pool, beside the claims: for what came back and nobody told of."""

TRUST_FOR = 3 * LOOK_EVERY
"""Seconds after such a look for which its place is believed."""


@dataclass(slots=True)
class _Front:
    """Where a pool begins, when that was last looked for from its beginning, and whether it was used since."""

    place: PoolPlace
    looked: float
    used: bool = True


class PoolFronts:
    """Where the pool of each service begins, as far as this node knows."""

    def __init__(self) -> None:
        self._fronts: dict[ServiceId, _Front] = {}
        self._forgotten: dict[ServiceId, int] = {}

    def start(self, service: ServiceId) -> PoolPlace:
        """Return a place before which nothing is ready, or the beginning."""
        if service in self._fronts:
            self._fronts[service].used = True
        return self.known(service)

    def known(self, service: ServiceId) -> PoolPlace:
        """Return the same, for something that goes on while nobody claims."""
        front = self._fronts.get(service)
        if front is None or monotonic() - front.looked > TRUST_FOR:
            return POOL_START
        return front.place

    def mark(self, service: ServiceId) -> int:
        """Return the mark that a look which begins now hands in with its place: it is not believed if overtaken."""
        return self._forgotten.get(service, 0)

    def found(self, service: ServiceId, place: PoolPlace | None, mark: int, *, whole: bool) -> None:
        """Note the first place that was ready; `whole`: it was looked for from the beginning, else from `start`."""
        if place is None or mark != self.mark(service):
            return
        front = self._fronts.get(service)
        if whole or front is None:
            self._fronts[service] = _Front(place, monotonic(), used=not whole)
        else:
            front.place = place

    def forget(self, service: ServiceId) -> None:
        """Look from the beginning: something may have come that ranks before all that is ready."""
        self._forgotten[service] = self.mark(service) + 1
        self._fronts.pop(service, None)

    def to_look_for(self) -> list[ServiceId]:
        """Return the services whose place was used since it was last looked for: it is to be looked for again."""
        return [service for service, front in self._fronts.items() if front.used]


class FrontWatch:
    """Looks now and then where pools begin, so that no claim has to."""

    def __init__(self, database: Database, fronts: PoolFronts) -> None:
        self._database = database
        self._fronts = fronts

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for service in self._fronts.to_look_for():
                mark = self._fronts.mark(service)
                with contextlib.suppress(Unavailable):
                    async with self._database.connection() as db:
                        place = await find_front(db, service)
                    self._fronts.found(service, place, mark, whole=True)
