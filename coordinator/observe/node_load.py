"""The load of a node, as it tells itself with each renewal of its lease."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time

from msgspec import Struct, json

LAG_CHECK_INTERVAL = 0.25
"""Seconds between two checks whether the event loop is late."""

RENEWALS_COMPARED = 3
"""Renewals of the lease of which the quickest tells how slow the database is: a single slow one says little."""


class PendingBuckets(Struct, array_like=True, frozen=True):
    """Buckets of a service that were asked for and are not there, and by how many clients.

    `reasons` counts them by why they do not come, as their sessions were told; what is just being served is not in it.
    """

    buckets: int = 0
    clients: int = 0
    reasons: dict[str, int] = {}

    def plus(self, other: PendingBuckets) -> PendingBuckets:
        """Return the sum of this and that of another node."""
        reasons = Counter(self.reasons)
        reasons.update(other.reasons)
        return PendingBuckets(self.buckets + other.buckets, self.clients + other.clients, dict(reasons))


Pending = dict[str, PendingBuckets]
"""Each service by its name, and the buckets of it that are pending."""


class NodeLoad(Struct):
    """Since the last one: `cpu` in cores, `memory` in bytes, `lag` the seconds that the event loop was late.

    `database_delay`: the seconds that the last renewals of the lease, a small change each, took at least.
    """

    sessions: int = 0
    items_per_second: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    lag: float = 0.0
    database_delay: float = 0.0
    pending: Pending = {}


class NodeLoadMeter:
    """Measures the processor, memory and lag of this process, and counts its work."""

    def __init__(self, sessions: Callable[[], int], items: Callable[[], int], pending: Callable[[], Pending]) -> None:
        self._sessions = sessions
        self._items = items
        self._pending = pending
        self._lag = 0.0
        self._renewals: deque[float] = deque(maxlen=RENEWALS_COMPARED)
        self._since = monotonic()
        self._cpu = process_time()
        self._settled = items()

    async def run(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_CHECK_INTERVAL
            await asyncio.sleep(LAG_CHECK_INTERVAL)
            self._lag = max(self._lag, loop.time() - due)

    @property
    def lag(self) -> float:
        """The most that the event loop was late since the last `take`, in seconds."""
        return self._lag

    def renewed(self, seconds: float) -> None:
        """Remember how long the database took to renew the lease."""
        self._renewals.append(seconds)

    def take(self) -> str:
        """Return the load since the last time, as JSON."""
        now, cpu, settled = monotonic(), process_time(), self._items()
        passed = max(now - self._since, 0.001)

        load = NodeLoad(
            sessions=self._sessions(),
            items_per_second=round((settled - self._settled) / passed, 1),
            cpu=round((cpu - self._cpu) / passed, 3),
            memory=resident_memory(),
            lag=round(self._lag, 3),
            database_delay=round(min(self._renewals, default=0.0), 4),
            pending=self._pending(),
        )

        self._since, self._cpu, self._settled, self._lag = now, cpu, settled, 0.0
        return json.encode(load).decode()


def resident_memory() -> int:
    """Return the bytes of memory that this process has; where the system does not tell, the most that it had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
