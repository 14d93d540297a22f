"""The pauses of one service while its outside API takes nothing: for a limit, or in an outage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from coordinator.client.backoff import Backoff
from coordinator.wording import duration

log = logging.getLogger("coordinator.client")

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds of the first pause in an outage, and of the last ones, before jitter takes up to a half off."""

FAILURES_IN_A_ROW = 3
"""Checks that fail, without one that does not, before it is an outage; single failures are just tried again."""

_MIN_LIMIT = 1.0
_REPORT_AGAIN_MARGIN = 5.0
"""Seconds by which a new limit must outlast the one before to be told to the server, too."""

_LOG_INTERVAL = 60.0
"""Seconds between two lines about the same trouble."""


class UpstreamPause:
    """The moments at which checks of one service may begin.

    During a pause none begins.  After it one check alone finds out whether the API works again; all others begin when
    it has.  A check is known by the time when it began: what began before the last pause says nothing new.

    `why` is the reason of an outage.
    """

    def __init__(
        self, service: str, backoff: Backoff | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._now = clock
        self._backoff = backoff if backoff is not None else Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._until = 0.0
        self._paused_at = 0.0
        self._failures = 0
        self.why = ""

        self._probe_wanted = False
        self._probe: float | None = None
        self.out_since: float | None = None
        self._limit_told = False
        self._last_line = float("-inf")

    @property
    def seconds(self) -> float:
        """The seconds until a check may begin; not above 0 if one may begin now."""
        return self._until - self._now()

    @property
    def out_for(self) -> float:
        """The seconds for which the API has been out; 0 if it is not."""
        return 0.0 if self.out_since is None else self._now() - self.out_since

    @property
    def steps(self) -> int:
        """The number of pauses in this outage."""
        return self._backoff.tries

    def admits(self) -> bool:
        """Tell whether another check may begin now."""
        return self.seconds <= 0 and self._probe is None

    def begin(self) -> float:
        """Note that a check begins; returns when."""
        began = self._now()
        if self._probe_wanted:
            self._probe = began
        return began

    def end(self, began: float) -> None:
        """Note that a check has ended, whatever came of it."""
        if self._probe == began:
            self._probe = None

    def limited(self, seconds: float, why: str) -> float | None:
        """Pause for a limit; returns the seconds to tell the server, None if it has been told."""
        seconds = max(seconds, _MIN_LIMIT)
        news = self.seconds <= 0 or seconds > self.seconds + _REPORT_AGAIN_MARGIN
        self._pause(max(self.seconds, seconds))
        if news and self._say(f"the outside API takes no more for {duration(seconds)}: {why}"):
            self._limit_told = True
        return seconds if news else None

    def failed(self, why: str, at_least: float, began: float) -> float | None:
        """Count a check that the API failed; returns the seconds of the pause that this begins, if it does."""
        if began < self._paused_at or self.seconds > 0:
            return None
        self._failures += 1
        if self._failures < FAILURES_IN_A_ROW and self.out_since is None:
            return None

        self.why = why
        seconds = max(self._backoff.next(), at_least)
        if self.out_since is None:
            self.out_since = began
            self._say(f"the outside API is out: {why}. Trying again in {seconds:.0f} s, then less often", now=True)
        else:
            self._say(f"the outside API is still out, for {duration(self.out_for)} now: {why}")

        self._pause(seconds)
        return seconds

    def answered(self, began: float) -> None:
        """Note that the API works: begin checks again without waiting for each other."""
        if began < self._paused_at:
            return
        if self.out_since is not None:
            self._say(f"the outside API works again, after {duration(self.out_for)}", now=True)
        elif self._limit_told:
            log.info("%s: the outside API takes requests again", self._service)

        self._failures = 0
        self._backoff.reset()
        self.out_since = None
        self._limit_told = False
        self._probe_wanted = False
        self._probe = None

    def _pause(self, seconds: float) -> None:
        self._paused_at = self._now()
        self._until = self._paused_at + seconds
        self._probe_wanted = True
        self._probe = None

    def _say(self, text: str, *, now: bool = False) -> bool:
        """Write a line, unless one was written within the last minute; tells whether it did."""
        if not now and self._now() - self._last_line < _LOG_INTERVAL:
            return False
        self._last_line = self._now()
        log.warning("%s: %s", self._service, text)
        return True
