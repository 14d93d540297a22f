"""Words for a volunteer that waits, by the reason that the server gives."""

from __future__ import annotations

from datetime import datetime

from coordinator.wire.frames import Waiting

TOLD_AT_ONCE = frozenset({"paused", "deactivated", "backing_off", "outdated"})
"""Reasons that a volunteer may want to do something about; the others are told once a wait has lasted."""

_SECONDS_MATTER_WITHIN = 90.0


def words_for(waiting: Waiting, now: datetime) -> str:
    """Say why nothing comes, and until when; `now` is in the volunteer's time zone, and so is what is said.

    The server's time is taken as it is: a clock that is wrong shows as a strange time, and nothing else.
    """
    until = _until(waiting.until, now)
    if waiting.reason == "backing_off":
        return f"slowed down{until} because {waiting.text}"
    return f"waits{until}: {waiting.text}"


def _until(text: str | None, now: datetime) -> str:
    if text is None:
        return ""
    try:
        end = datetime.fromisoformat(text).astimezone(now.tzinfo)
    except ValueError:
        return ""

    if end.date() != now.date():
        return f" until {end:%Y-%m-%d %H:%M}"
    near = (end - now).total_seconds() < _SECONDS_MATTER_WITHIN
    return f" until {end:%H:%M:%S}" if near else f" until {end:%H:%M}"
