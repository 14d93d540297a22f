"""Turns between nodes: clients that have waited longer go first, on whatever node they are.

A node knows at once of what its own peers put into the pool, the others a moment later.  So while there is less than is
asked for, the clients of one node could get all of it.  Therefore nodes tell each other how long the client has waited
that is next in turn, if that is long; and a node that has too little for its own clients lets a node go first whose
client has waited longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.flow.demand_queue import DemandQueue
from coordinator.flow.signal_types import LongWaits
from coordinator.flow.signals import Signals
from coordinator.model import Boot, ServiceId

LONG_WAIT = 1.0
"""Seconds after which others are told of a wait, and by which it has to be longer than theirs to go first."""

LOOK_INTERVAL = 0.5
"""Seconds between two looks at how long clients wait."""

REPEAT_AFTER = 2.0
"""Seconds after which others are told again of waits that go on, in case a signal was lost or they have forgotten."""

BELIEVE_WAITS_FOR = 5.0
"""Seconds for which a node is believed to have clients that wait, though it tells nothing more."""

GIVE_WAY_FOR = 0.25
"""Seconds for which another node may go first: it hears of what has come within 0.1 s."""

MOST_SERVICES = 200
"""Services of which one signal tells, at most; 25 bytes each."""


@dataclass(frozen=True, slots=True)
class _KnownWaits:
    """The waits that a node has told of, and when: moments of this node's clock that never goes back."""

    at: float
    since: dict[ServiceId, float]


class LongestWaits:
    """Tells the other nodes how long clients wait here, and knows how long they wait there.

    It knows no clock: `now`, as all moments, is in seconds of one that never goes back.
    """

    def __init__(self, boot: Boot, signals: Signals) -> None:
        self._boot = boot
        self._signals = signals
        self._elsewhere: dict[Boot, _KnownWaits] = {}
        self._told = _KnownWaits(0.0, {})

    def hear(self, told: LongWaits, now: float) -> None:
        """Take in what a node has told."""
        if told.node == self._boot:
            return
        since = {service: now - waited for service, waited in told.seconds.items()}
        self._elsewhere[told.node] = _KnownWaits(now, since)
        self._elsewhere = {node: known for node, known in self._elsewhere.items() if now - known.at < BELIEVE_WAITS_FOR}

    def goes_first_elsewhere(self, service: ServiceId, since: float, now: float) -> bool:
        """Tell whether a client of another node has waited longer than one that waits here since that moment."""
        return any(
            known.since[service] < since - LONG_WAIT
            for known in self._elsewhere.values()
            if service in known.since and now - known.at < BELIEVE_WAITS_FOR
        )

    def forget(self, service: ServiceId) -> None:
        """Note that the others have left something: they want no more, or may not have it, until they tell again."""
        for known in self._elsewhere.values():
            known.since.pop(service, None)

    def tell(self, since: Mapping[ServiceId, float], now: float) -> None:
        """Tell the others of the clients that are next in turn here, if they wait long and that is news."""
        long = {service: moment for service, moment in since.items() if now - moment >= LONG_WAIT}
        if self._signals.alone or not (self._is_news(long) or (long and now - self._told.at >= REPEAT_AFTER)):
            return

        self._told = _KnownWaits(now, long)
        longest = sorted(long, key=long.__getitem__)[:MOST_SERVICES]
        self._signals.tell(LongWaits(self._boot, {service: round(now - long[service], 1) for service in longest}))

    def _is_news(self, long: Mapping[ServiceId, float]) -> bool:
        told = self._told.since
        return long.keys() != told.keys() or any(long[service] - told[service] >= LONG_WAIT for service in long)


class TurnOfNode:
    """Whether the clients of one service here let a client of another node go first, when something has come."""

    def __init__(self, service: ServiceId, queue: DemandQueue, waits: LongestWaits) -> None:
        self._service = service
        self._queue = queue
        self._waits = waits
        self._too_little = False
        """Whether the last claim found too little for all who had their turn."""
        self._came = False
        """Whether something has come since, which others may need more."""
        self._gave_way = False

    def something_came(self) -> None:
        """Note that something may be in the pool, or in the queue."""
        self._came = self._too_little

    def gives_way(self, now: float) -> bool:
        """Tell whether a client of another node has waited longer for what has come than the next one here."""
        since = self._queue.waiting_since()
        if not self._came or since is None or not self._waits.goes_first_elsewhere(self._service, since, now):
            return False
        self._came, self._gave_way = False, True
        return True

    def begin_claim(self) -> None:
        """Note that a claim is made, of all that has come."""
        self._too_little = self._came = False

    def end_claim(self, *, served: bool) -> None:
        """Note whether the claim served somebody: what another node has left, it does not want."""
        if self._gave_way and served:
            self._waits.forget(self._service)
        self._gave_way = False

    def found_too_little(self, *, heard: bool) -> None:
        """Note that the claim left somebody unserved; `heard`: something has come since it began."""
        self._too_little, self._came = True, heard
