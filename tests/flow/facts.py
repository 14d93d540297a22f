"""Knowledge of the state machine, and the facts that must hold of each answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coordinator.model import BucketId, Claimed, ItemId
from coordinator.store.results import CheckedSubmit
from tests.store.bench import given


@dataclass
class Facts:
    """Facts that must hold, from what was answered."""

    alive: dict[str, ItemId] = field(default_factory=dict)
    open: set[ItemId] = field(default_factory=set)
    """Items that nobody has settled since they were last wanted."""
    twice: set[ItemId] = field(default_factory=set)
    """Items that were prioritised while a client had them."""
    held: dict[BucketId, Claimed] = field(default_factory=dict)
    numbers: dict[BucketId, int] = field(default_factory=dict)
    stored: dict[tuple[int, int], str] = field(default_factory=dict)
    """(item, claim) and value, of each acknowledged result."""
    discarded: set[tuple[int, int]] = field(default_factory=set)
    """(item, claim) of what a claim has brought too late; it brings nothing more of that item."""
    past: list[Claimed] = field(default_factory=list)
    """Claims that have ended."""
    lost: set[int] = field(default_factory=set)
    """Those of them whose client was cut off, or did not come back to a drained node in time."""
    acknowledged: list[CheckedSubmit] = field(default_factory=list)

    def hold(self, claimed: Claimed, *, kept: bool = False) -> None:
        """`kept`: it never went back to the pool, so that an item may have been settled in its other copy."""
        assert claimed.bucket_id not in self.held, "two hold one bucket"
        assert claimed.claim > self.numbers.get(claimed.bucket_id, 0), "claim numbers grow"
        known = self.open | (self.twice if kept else set())
        strange = [item for item in given(claimed) if item not in known]
        assert not strange, f"handed out, though settled or deleted: {strange}"
        assert given(claimed), "an empty bucket was handed out"
        self.held[claimed.bucket_id] = claimed
        self.numbers[claimed.bucket_id] = claimed.claim

    def drop(self, bucket: BucketId) -> None:
        self.past.append(self.held.pop(bucket))


def in_order(claimed: Iterable[Claimed]) -> list[Claimed]:
    """In an order that is the same each time."""
    return sorted(claimed, key=lambda one: (one.items, one.claim))
