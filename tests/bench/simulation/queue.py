"""What waits, and what is ready, in the order of rank.  Times are seconds on the simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.simulation.member import Member

Draw = Callable[[Sequence["Bucket"]], "Bucket"]
"""Which of these ready buckets of one rank is next; they are in no order."""


@dataclass(slots=True)
class Batch:
    """Items that were added together: one rank, one beginning."""

    rank: float
    since: float
    priority: int
    count: int


class Waiting:
    """The items that are not in a bucket."""

    def __init__(self) -> None:
        self.items = 0
        self._batches: list[tuple[float, int, Batch]] = []
        self._added = 0

    @property
    def front(self) -> float | None:
        """The best rank."""
        return self._batches[0][0] if self._batches else None

    def add(self, batch: Batch) -> None:
        """Let items wait."""
        self._added += 1
        self.items += batch.count
        heappush(self._batches, (batch.rank, self._added, batch))

    def take(self, limit: int) -> list[Batch]:
        """The items that rank first."""
        taken = []
        while limit and self._batches:
            rank, number, batch = heappop(self._batches)
            count = min(limit, batch.count)
            if count < batch.count:
                rest = Batch(batch.rank, batch.since, batch.priority, batch.count - count)
                heappush(self._batches, (rank, number, rest))
            taken.append(Batch(batch.rank, batch.since, batch.priority, count))
            limit -= count
            self.items -= count
        return taken

    def oldest(self) -> dict[int, float]:
        """Since when the oldest of each priority waits."""
        found: dict[int, float] = {}
        for _, _, batch in self._batches:
            found[batch.priority] = min(found.get(batch.priority, batch.since), batch.since)
        return found


@dataclass(slots=True, eq=False)
class Bucket:
    """A bucket.  `since` are quantiles of the times since which the items of its run wait, the oldest first."""

    rank: float
    since: tuple[float, ...]
    priority: int
    left: int
    attempts: int = 0
    state: str = "ready"
    claim: int = 0
    holder: Member | None = None
    session: object = None
    touched: float = 0.0
    split_at: float | None = None
    ended: str = ""
    ended_at: float = 0.0
    ended_by: Member | None = None
    failed_at: set[Member] = field(default_factory=set)
    given_back_by: list[Member] = field(default_factory=list)
    place: int = -1
    """Where it stands among those of its rank, while it is ready."""


class Ready:
    """The pool of ready buckets: the best rank first, and chance within a rank."""

    def __init__(self, chance: Random) -> None:
        self.size = 0
        self._chance = chance
        self._of_rank: dict[float, list[Bucket]] = {}
        self._best: list[float] = []
        self._worst: list[float] = []

    @property
    def front(self) -> float | None:
        """The best rank."""
        while self._best and self._best[0] not in self._of_rank:
            heappop(self._best)
        return self._best[0] if self._best else None

    @property
    def back(self) -> float | None:
        """The worst rank."""
        while self._worst and -self._worst[0] not in self._of_rank:
            heappop(self._worst)
        return -self._worst[0] if self._worst else None

    @property
    def items(self) -> int:
        """How many items are in them."""
        return sum(bucket.left for same in self._of_rank.values() for bucket in same)

    def add(self, bucket: Bucket) -> None:
        """Put one in."""
        same = self._of_rank.get(bucket.rank)
        if same is None:
            same = self._of_rank[bucket.rank] = []
            heappush(self._best, bucket.rank)
            heappush(self._worst, -bucket.rank)
        bucket.place = len(same)
        same.append(bucket)
        self.size += 1

    def remove(self, bucket: Bucket) -> None:
        """Take one out."""
        same = self._of_rank[bucket.rank]
        last = same.pop()
        if last is not bucket:
            same[bucket.place] = last
            last.place = bucket.place
        bucket.place = -1
        self.size -= 1
        if not same:
            del self._of_rank[bucket.rank]

    def draw(self, choose: Draw | None = None, refused: Sequence[Bucket] = ()) -> Bucket | None:
        """Take out one of the best rank, none of the `refused`; None if there is none."""
        if refused:
            return self._draw_but(refused, choose)
        rank = self.front
        if rank is None:
            return None
        same = self._of_rank[rank]
        bucket = same[int(self._chance.random() * len(same))] if choose is None else choose(same)
        self.remove(bucket)
        return bucket

    def _draw_but(self, refused: Sequence[Bucket], choose: Draw | None) -> Bucket | None:
        for rank in sorted(self._of_rank):
            offered = [one for one in self._of_rank[rank] if one not in refused]
            if offered:
                bucket = self._chance.choice(offered) if choose is None else choose(offered)
                self.remove(bucket)
                return bucket
        return None

    def oldest(self) -> dict[int, float]:
        """Since when the oldest of each priority waits."""
        found: dict[int, float] = {}
        for same in self._of_rank.values():
            # A rank is of one run and one priority, nearly always; and all of a run are of the same age.
            first = same[0]
            found[first.priority] = min(found.get(first.priority, first.since[0]), first.since[0])
        return found


def stay_behind(groups: Sequence[tuple[datetime, int]], size: int, *, short: bool) -> list[int]:
    """How many items of each priority wait on because they fill no bucket of `size`.

    `groups` are the front rank and the number of items of each; none stay behind when `short` buckets are wanted.
    The builder's statement has the same rule, and a test of it compares them.
    """
    # What would stay behind but ranks before a bucket that is made must not wait behind it.
    back = max((rank for rank, count in groups if count >= size), default=None)
    behind = []
    for rank, count in groups:
        overtaken = back is not None and rank < back
        behind.append(0 if short or overtaken else count % size)
    return behind
