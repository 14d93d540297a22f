"""The number of requests that an outside API still takes, by what its answers tell and by our own count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from coordinator.client.checkers import UpstreamLimited
from coordinator.client.http_pool import HttpResponse
from coordinator.client.x_answers import LIMITS
from coordinator.wording import duration

_FIRST_WAIT = 1.0
"""Seconds to wait at least where a limit is spent, whatever its reset says; doubled while it stays spent."""

_LONGEST_LEAST_WAIT = 900.0
"""Seconds up to which that doubles: the window of the API's limits."""

_LONGEST_WAIT = 86_400.0
"""Seconds after which a limit is looked at again, whatever its reset says."""

_EARLIEST_DATE = 100_000_000
"""Resets below this are seconds from now, above it seconds since 1970."""

_LIMIT_REACHED = "its limit is reached"

TOO_MANY = frozenset({420, 429})
"""The statuses of an answer that refuses a request for its limit."""


class ToldLimit(NamedTuple):
    """One limit as an answer tells it; None where untold.

    `name` begins the names of its headers, `requests` is how many it allows, `remaining` how many are left, and
    `reset_in` the seconds until there are new ones.
    """

    name: str
    requests: float | None
    remaining: float | None
    reset_in: float | None

    @property
    def is_spent(self) -> bool:
        """Whether no request is left."""
        return self.remaining is not None and self.remaining <= 0

    @property
    def left(self) -> str:
        """Words for how many requests are left, and when there are new ones."""
        count = "none" if self.remaining is None or self.is_spent else f"{self.remaining:,.0f}"
        new = "" if self.reset_in is None else f" (new ones in {duration(self.reset_in)})"
        return f"{count} of {self._allowed} are left{new}"

    @property
    def spent(self) -> str:
        """Words for why no request is taken now."""
        return f"its limit of {self._allowed} is reached"

    @property
    def _allowed(self) -> str:
        count = "the" if self.requests is None else f"{self.requests:,.0f}"
        return f"{count} requests {LIMITS.get(self.name, f'that {self.name} tells')}"


class Allowance:
    """The number of requests that the API still takes.

    By the headers of its answers, of which the tightest counts or, where it sends none, by our own count: `requests` in
    `window` seconds, 0 for no limit.  Times are taken from the answer's own `Date`, so that neither clock need be
    right; `wall` is used where there is none.
    """

    def __init__(
        self,
        requests: int,
        window: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._requests = requests
        self._window = window
        self._clock = clock
        self._wall = wall

        self._began = -window
        self._used = 0
        self._told = False
        self._left: float | None = None
        self._in_flight = 0
        self._answered = asyncio.Event()
        self._blocked_until: float | None = None
        self._least_wait = 0.0
        self._why = ""
        self.latest: list[ToldLimit] = []
        """The limits that the latest answer told."""

    async def take(self) -> None:
        """Count one request; waits while only answers under way can tell whether the API takes another.

        Raises:
            UpstreamLimited: there are none left.
        """
        while True:
            self._check()
            if self._left is None or self._left > self._in_flight:
                break
            self._answered.clear()
            await self._answered.wait()

        self._in_flight += 1
        self._used += 1

    def give_up(self) -> None:
        """End a request that had no answer."""
        self._in_flight -= 1
        self._answered.set()

    def learn(self, reply: HttpResponse) -> float:
        """End a request, and learn from its answer; returns the seconds of its `Retry-After`, 0 if it has none.

        Raises:
            UpstreamLimited: the API refused the request because of its limit.
        """
        self.give_up()
        date = _date(reply.headers)
        now, dated = (self._wall(), False) if date is None else (date, True)
        self.latest = limits = list(_limits(reply.headers, now))
        asked = _retry_after(reply.headers, now)
        waits = [(self._wait(limit, dated), limit.spent) for limit in limits if limit.is_spent]
        if reply.status in TOO_MANY:
            if asked is not None:
                waits.append((asked, max(waits)[1] if waits else _LIMIT_REACHED))
            others = [self._wait(limit, dated) for limit in limits]
            self._block(*max(waits, default=(max(others, default=self._window), _LIMIT_REACHED)))
            raise UpstreamLimited(self._seconds_blocked(), self._why)

        if waits:
            self._block(*max(waits))
        elif self._blocked_until is None and (limits or reply.status < 300):
            left = [limit.remaining for limit in limits if limit.remaining is not None]
            self._told = bool(left)
            self._left = min(left, default=None)
            self._least_wait = 0.0
        return max(0.0, asked or 0.0)

    def _check(self) -> None:
        """Raise UpstreamLimited if the API is known to take nothing now."""
        now = self._clock()
        if self._blocked_until is not None:
            if now < self._blocked_until:
                raise UpstreamLimited(self._blocked_until - now, self._why)
            self._blocked_until = None
            self._left = 1  # one request finds out

        if now - self._began >= self._window:
            self._began, self._used = now, 0
        if self._requests and not self._told and self._used >= self._requests:
            raise UpstreamLimited(self._began + self._window - now, "its limit is reached by our own count")

    def _block(self, wait: float, why: str) -> None:
        """Take nothing for so many seconds, and for longer each time that this turns out to be too short."""
        if self._blocked_until is None:  # else the request was made before the block, and says nothing new
            self._least_wait = min(max(_FIRST_WAIT, 2 * self._least_wait), _LONGEST_LEAST_WAIT)
        until = self._clock() + min(max(wait, self._least_wait), _LONGEST_WAIT)
        if self._blocked_until is None or until > self._blocked_until:
            self._blocked_until, self._why = until, why
        self._answered.set()

    def _seconds_blocked(self) -> float:
        return max(0.0, (self._blocked_until or 0.0) - self._clock())

    def _wait(self, limit: ToldLimit, dated: bool) -> float:
        """Return the seconds until a limit is new; without a `Date` no longer than our own window."""
        if limit.reset_in is None:
            return self._window
        return limit.reset_in if dated else min(limit.reset_in, self._window)


def _limits(headers: Mapping[str, str], now: float) -> Iterator[ToldLimit]:
    """Find all limits: every `…limit…-remaining` and `…limit…-reset`."""
    for prefix in dict.fromkeys(name.rpartition("-")[0] for name in headers if "limit" in name):
        remaining = _number(headers, f"{prefix}-remaining")
        reset = _number(headers, f"{prefix}-reset")
        if remaining is not None or reset is not None:
            since_1970 = reset is not None and reset >= _EARLIEST_DATE
            reset_in = reset - now if reset is not None and since_1970 else reset
            yield ToldLimit(prefix, _number(headers, f"{prefix}-limit"), remaining, reset_in)


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read `Retry-After`, which is in seconds or a date."""
    seconds = _number(headers, "retry-after")
    if seconds is not None:
        return seconds
    date = _date(headers, "retry-after")
    return None if date is None else date - now


def _date(headers: Mapping[str, str], name: str = "date") -> float | None:
    """Read a date, in seconds since 1970."""
    try:
        return parsedate_to_datetime(headers[name]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        number = float(headers[name])
    except (KeyError, ValueError):
        return None
    return number if abs(number) < 1e12 else None
