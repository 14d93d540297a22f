"""Events of this node, emitted by the steps after their commit; for display only, no step may depend on them.

They stand in a ring in memory: the oldest fall out.  The counts are of this node since it started.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from time import time
from typing import NamedTuple, get_args

from coordinator.wire.stats_events import SEVERITIES, EventKind, Severity

EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

EVENTS_REMEMBERED = 1000
"""Events that a node has in memory."""

MAX_EVENT_TEXT = 300
"""Characters of an event's text; those of faults may be long."""


class NodeEvent(NamedTuple):
    """Something that happened; `at` in seconds since 1970."""

    number: int
    at: float
    kind: EventKind
    severity: Severity
    client: str | None
    service: str | None
    bucket: str | None
    text: str


class Events:
    """The last events of this node, and the number of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[EventKind] = Counter()
        self.newest = 0
        """The number of the newest event; 0 before the first."""
        self._ring: deque[NodeEvent] = deque(maxlen=EVENTS_REMEMBERED)

    def emit(
        self,
        kind: EventKind,
        text: str,
        severity: Severity | None = None,
        /,
        *,
        client: str | None = None,
        service: str | None = None,
        bucket: str | None = None,
    ) -> None:
        """Note an event; `service` is its name, `severity` that of its kind unless told."""
        self.newest += 1
        self.counts[kind] += 1
        self._ring.append(
            NodeEvent(
                self.newest, time(), kind, severity or SEVERITIES[kind], client, service, bucket, text[:MAX_EVENT_TEXT]
            )
        )

    def since(self, number: int) -> list[NodeEvent]:
        """Return the events after that number that are still remembered, oldest first."""
        missing = min(self.newest - number, len(self._ring))
        return list(islice(self._ring, len(self._ring) - missing, None))
