"""The items over which a program may have died: after a death they are tried one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_MAX_DEATHS = 2
"""Deaths over an item that the program had alone, after which the item is the cause: the first may be chance."""

_MAX_FATAL_ITEMS = 3
"""Different items over which the program dies, without a result between them, after which it is given up."""

_MAX_IDLE_DEATHS = 3
"""Deaths of a program that had no item, without a result between them, after which it is given up."""


class CrashSuspects:
    """The items that a program had when it died, oldest first, and its deaths since its last result."""

    def __init__(self) -> None:
        self._suspects: dict[int, None] = {}
        self._deaths_alone: Counter[int] = Counter()
        self._fatal: dict[int, None] = {}
        self._idle_deaths = 0

    @property
    def next(self) -> int | None:
        """Return the item that the program may have alone now; None if it may have all."""
        return next(iter(self._suspects), None)

    def died(self, items: Iterable[int]) -> int | None:
        """Note a death with these items in check; returns the item that is the cause of it, if that is known now."""
        had = list(items)
        if not had:
            self._idle_deaths += 1
            return None
        if len(had) > 1:
            self._suspects = dict.fromkeys(had) | self._suspects
            return None

        (item,) = had
        self._deaths_alone[item] += 1
        if self._deaths_alone[item] < _MAX_DEATHS:
            self._suspects = {item: None} | self._suspects
            return None
        self._fatal[item] = None
        return item

    def ended(self, item: int) -> None:
        """Note an item that is not open any more, whatever came of it."""
        self._suspects.pop(item, None)
        self._deaths_alone.pop(item, None)

    def heard(self) -> None:
        """Note a result: the program works."""
        self._fatal.clear()
        self._idle_deaths = 0

    def verdict(self) -> str | None:
        """Say over what the program has died, if it was too often; None if it may be started again."""
        if len(self._fatal) >= _MAX_FATAL_ITEMS:
            items = ", ".join(map(str, self._fatal))
            return f"died over {len(self._fatal)} different items, each alone, without a result between them: {items}"
        if self._idle_deaths >= _MAX_IDLE_DEATHS:
            return f"died {self._idle_deaths} times without a result"
        return None
