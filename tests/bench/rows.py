"""Rows of results as the coordinator stores them: by buckets of 180, shuffled in runs of 100 buckets."""

from __future__ import annotations

import random
from collections.abc import Iterator

SIZE = 180
RUN = 100


def shuffled_buckets(count: int, claim: int) -> Iterator[tuple[int, list[int]]]:
    """So many buckets of the first items of the catalogue, each with the number of a claim."""
    for run in range(0, count, RUN):
        items = list(range(run * SIZE + 1, (run + min(RUN, count - run)) * SIZE + 1))
        random.shuffle(items)
        for n in range(0, len(items), SIZE):
            yield claim + run + n // SIZE, items[n : n + SIZE]
