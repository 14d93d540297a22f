"""Words of sentences that depend on a number."""

from __future__ import annotations

_SECONDS_UP_TO = 120
"""Seconds from which on a time is told in minutes."""


def counted(count: int, noun: str) -> str:
    """Return a number and its noun, which takes an s in the plural: `1 item`, `2,000 items`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time as people say it, rounded: `45 s`, `15 min`, `4 h 48 min`."""
    whole = max(0, round(seconds))
    if whole < _SECONDS_UP_TO:
        return f"{whole} s"
    hours, minutes = divmod(round(whole / 60), 60)
    return " ".join(f"{count} {unit}" for count, unit in ((hours, "h"), (minutes, "min")) if count)
