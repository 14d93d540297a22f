"""Counting how many different texts there are among any number of them."""

from __future__ import annotations

import heapq
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from typing import BinaryIO, Self, cast

RUN = 1 << 20
"""Texts of which the hashes are kept in memory, 8 bytes each; those before lie sorted in a temporary file."""

_READ_AT_ONCE = 1 << 13


class DistinctTexts:
    """Counts different texts by their hashes of 64 bits: of a hundred million, two are mixed up once in 4,000 times.

    `with DistinctTexts() as texts`: its temporary files are gone at the end.
    """

    def __init__(self, run: int = RUN) -> None:
        self.given = 0
        """The number of texts given so far."""
        self._most = run
        self._newest = array("q")
        self._runs: list[BinaryIO] = []
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self._files.close()

    def add(self, texts: Iterable[str]) -> None:
        """Take some texts."""
        before = len(self._newest)
        self._newest.extend(map(hash, texts))
        self.given += len(self._newest) - before
        if len(self._newest) >= self._most:
            self._put_away()

    def count(self) -> int:
        """Return how many different texts there were."""
        if not self._runs:
            return len(set(self._newest))
        runs = [_numbers(run) for run in self._runs]
        return sum(1 for _ in groupby(heapq.merge(*runs, sorted(self._newest))))

    def _put_away(self) -> None:
        run = cast("BinaryIO", self._files.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115 - it is entered
        array("q", sorted(self._newest)).tofile(run)
        self._runs.append(run)
        self._newest = array("q")


def _numbers(run: BinaryIO) -> Iterator[int]:
    run.seek(0)
    while data := run.read(_READ_AT_ONCE):
        yield from array("q", data)
