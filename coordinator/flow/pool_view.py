"""The ready pool of one service, as far as this node knows it.

Pure: it asks no database and knows no clock; `now` is passed in, in seconds of a clock that never goes back.  Nothing
else decides what is known of a pool.  It is a guess, made of what was found and what was heard since:

| state       | meaning                                                       | what is done while a client waits |
|-------------|---------------------------------------------------------------|-----------------------------------|
| `UNKNOWN`   | buckets may be ready, and items may wait for a bucket         | claim; if few are left, build too |
| `HAS_READY` | buckets may be ready, and no items wait for a bucket          | claim                             |
| `NEW_ITEMS` | no bucket is ready, and new items wait for one                | build, then claim                 |
| `EMPTY`     | no bucket is ready, and nothing waits of which to build one   | nothing, until something is heard |

An empty pool is looked at again after `LOOK_AT_EMPTY_POOL_AFTER`, whatever is heard.

| event            | UNKNOWN   | HAS_READY | NEW_ITEMS | EMPTY     |
|------------------|-----------|-----------|-----------|-----------|
| `READY_CAME`     | UNKNOWN   | UNKNOWN   | UNKNOWN   | UNKNOWN   |
| `ITEMS_CAME`     | UNKNOWN   | UNKNOWN   | NEW_ITEMS | NEW_ITEMS |
| `ASKED`          | UNKNOWN   | HAS_READY | UNKNOWN   | UNKNOWN   |
| `BUILD_BEGAN`    | HAS_READY | HAS_READY | HAS_READY | HAS_READY |
| `MORE_MAY_WAIT`  | UNKNOWN   | UNKNOWN   | NEW_ITEMS | UNKNOWN   |
| `ALL_BUILT`      | UNKNOWN   | HAS_READY | NEW_ITEMS | HAS_READY |
| `FOUND_EMPTY`    | EMPTY     | EMPTY     | NEW_ITEMS | EMPTY     |
| `LOOK_DUE`       | UNKNOWN   | UNKNOWN   | NEW_ITEMS | UNKNOWN   |

`BUILD_BEGAN` sets what is true at the end of a run that builds all there is, so that what is heard during the run
is not forgotten when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from itertools import product

from coordinator.flow.bucket_builder import BuildOutcome, BuildStatus
from coordinator.store.claims import FRONT_BUCKETS

LOOK_AT_EMPTY_POOL_AFTER = 2.0
"""Seconds after which an empty pool is looked at again though nothing was heard, in case a signal was lost."""

BELIEVE_EMPTY_FOR = 0.25
"""Seconds for which an empty pool is not looked at again for those that ask without waiting, unless something is heard.

Nodes tell each other sooner.  However often clients ask when there is nothing, it costs four looks a second.
"""


class PoolState(Enum):
    """The belief about a pool.  See the first table above."""

    UNKNOWN = auto()
    HAS_READY = auto()
    NEW_ITEMS = auto()
    EMPTY = auto()


class PoolEvent(Enum):
    """A thing that was heard or found.  See the second table above."""

    READY_CAME = auto()
    """Some node has put something into the pool, or something else has changed."""
    ITEMS_CAME = auto()
    """New items wait that are in no bucket yet."""
    ASKED = auto()
    """Somebody asks after a time in which nobody looked; or asks without waiting, a while after it was found empty."""
    BUILD_BEGAN = auto()
    MORE_MAY_WAIT = auto()
    """A run of the builder has left items, or has not looked whether there are any."""
    ALL_BUILT = auto()
    """A run of the builder has put all that waited into buckets."""
    FOUND_EMPTY = auto()
    """A claim got nothing, and there was nothing to build."""
    LOOK_DUE = auto()
    """The pool was believed to be empty for long enough."""


_UNKNOWN, _HAS_READY, _NEW_ITEMS, _EMPTY = PoolState

# In the order of the states.
_ROWS: Mapping[PoolEvent, tuple[PoolState, PoolState, PoolState, PoolState]] = {
    PoolEvent.READY_CAME: (_UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN),
    PoolEvent.ITEMS_CAME: (_UNKNOWN, _UNKNOWN, _NEW_ITEMS, _NEW_ITEMS),
    PoolEvent.ASKED: (_UNKNOWN, _HAS_READY, _UNKNOWN, _UNKNOWN),
    PoolEvent.BUILD_BEGAN: (_HAS_READY, _HAS_READY, _HAS_READY, _HAS_READY),
    PoolEvent.MORE_MAY_WAIT: (_UNKNOWN, _UNKNOWN, _NEW_ITEMS, _UNKNOWN),
    PoolEvent.ALL_BUILT: (_UNKNOWN, _HAS_READY, _NEW_ITEMS, _HAS_READY),
    PoolEvent.FOUND_EMPTY: (_EMPTY, _EMPTY, _NEW_ITEMS, _EMPTY),
    PoolEvent.LOOK_DUE: (_UNKNOWN, _UNKNOWN, _NEW_ITEMS, _UNKNOWN),
}

POOL_STATES: Mapping[tuple[PoolState, PoolEvent], PoolState] = {
    (state, event): _ROWS[event][place] for (place, state), event in product(enumerate(PoolState), PoolEvent)
}
"""The state of a pool after an event, for each state before it."""

_AFTER_BUILD: Mapping[BuildStatus, PoolEvent | None] = {
    BuildStatus.BUILT: PoolEvent.MORE_MAY_WAIT,
    BuildStatus.ALL_BUILT: PoolEvent.ALL_BUILT,
    BuildStatus.POOL_FULL: PoolEvent.MORE_MAY_WAIT,
    BuildStatus.QUEUE_EMPTY: None,
    BuildStatus.BUSY: PoolEvent.MORE_MAY_WAIT,
}


class PoolView:
    """The belief of this node about the ready pool of one service."""

    def __init__(self) -> None:
        self.state = PoolState.UNKNOWN
        self._found_empty_at = float("-inf")
        self.look_again_at = 0.0
        """When the pool is looked at again, if it is believed to be empty."""
        self._target = 2 * FRONT_BUCKETS
        """How many ready buckets there should be, as far as is known."""

    def on(self, event: PoolEvent) -> None:
        """Note that something was heard or found."""
        self.state = POOL_STATES[self.state, event]

    def found_empty(self, now: float, seconds: float | None = None) -> None:
        """Note that there is nothing; look again after these seconds, else after `LOOK_AT_EMPTY_POOL_AFTER`."""
        self._found_empty_at = now if seconds is None else float("-inf")
        self.look_again_at = now + (LOOK_AT_EMPTY_POOL_AFTER if seconds is None else seconds)
        self.on(PoolEvent.FOUND_EMPTY)

    def asked_at_once(self, now: float) -> None:
        """Note that somebody asks who does not wait."""
        if self.state is not PoolState.EMPTY or now >= self._found_empty_at + BELIEVE_EMPTY_FOR:
            self.on(PoolEvent.ASKED)

    def look_if_due(self, now: float) -> None:
        """Stop believing that the pool is empty once that was found long enough ago."""
        if self.state is PoolState.EMPTY and now >= self.look_again_at:
            self.on(PoolEvent.LOOK_DUE)

    def built(self, outcome: BuildOutcome) -> None:
        """Note how a run of the builder has ended."""
        if outcome.target is not None:
            self._target = outcome.target
        event = _AFTER_BUILD[outcome.status]
        if event is not None:
            self.on(event)

    def build_ahead(self, left: int) -> bool:
        """Tell whether more buckets should be built now, since so few ready ones are left by a claim.

        A claim counts `FRONT_BUCKETS` at most.
        """
        few = left < max(1, min(self._target // 2, FRONT_BUCKETS))
        return few and self.state is not PoolState.HAS_READY
