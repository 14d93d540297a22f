"""What happened, told by the steps after their commit; never awaited, never a reason for anything.

A ring in memory: what is too old falls out.  The counts are of this node since it started.
"""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime
from itertools import islice
from time import time
from typing import NamedTuple, get_args

from coordinator.wire.stats import EventKind, EventRow

KINDS: tuple[EventKind, ...] = get_args(EventKind)

KEEP = 1000
"""Events that are remembered."""

LONGEST = 300
"""Letters of an event's text; faults may be long."""


class Event(NamedTuple):
    """Something that happened; `at` in seconds since 1970."""

    number: int
    at: float
    kind: EventKind
    client: str | None
    service: str | None
    bucket: str | None
    text: str

    def row(self) -> EventRow:
        """As the stats channel tells it."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return EventRow(self.number, at, self.kind, self.client, self.service, self.bucket, self.text)


class Events:
    """The last events of this node, and how many there were of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[EventKind] = Counter()
        self.newest = 0
        """The number of the newest event; 0 before the first."""
        self._ring: deque[Event] = deque(maxlen=KEEP)

    def emit(
        self,
        kind: EventKind,
        text: str,
        *,
        client: str | None = None,
        service: str | None = None,
        bucket: str | None = None,
    ) -> None:
        """Note that something has happened; `service` is its name."""
        self.newest += 1
        self.counts[kind] += 1
        self._ring.append(Event(self.newest, time(), kind, client, service, bucket, text[:LONGEST]))

    def since(self, number: int) -> list[Event]:
        """Those behind that number that are still remembered, oldest first."""
        missing = min(self.newest - number, len(self._ring))
        return list(islice(self._ring, len(self._ring) - missing, None))
