"""Times and page cursors as they stand in messages of the admin and the stats channel."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from coordinator.errors import BadMessage


def time_text(moment: datetime) -> str:
    """RFC 3339, UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def time_text_or_none(moment: datetime | None) -> str | None:
    """The same of a time that may be missing."""
    return None if moment is None else time_text(moment)


def moment_of(text: str, path: str) -> datetime:
    """A time of a request; `path` is where it stands.

    Raises:
        BadMessage: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadMessage("A time is given as RFC 3339, in UTC.", detail={"path": path}) from None


def moment_or_none(text: str | None, path: str) -> datetime | None:
    """The same of a field that may be left out."""
    return None if text is None else moment_of(text, path)


def cursor(after: str, parts: int) -> list[str]:
    """The parts of an `after`.

    Raises:
        BadMessage: it has others.
    """
    found = after.rsplit("|", parts - 1)
    if len(found) != parts:
        raise BadMessage("`after` is the `next` of the page before.", detail={"path": "$.after"})
    return found


def number(text: str) -> int:
    """A part of an `after` that is a number.

    Raises:
        BadMessage: it is none.
    """
    if not re.fullmatch(r"\d{1,18}", text):
        raise BadMessage("`after` is the `next` of the page before.", detail={"path": "$.after"})
    return int(text)


def two_numbers(after: str | None) -> tuple[int, int]:
    """An `after` of two numbers; zeros, before all rows, if there is none.

    Raises:
        BadMessage: it is something else.
    """
    if after is None:
        return 0, 0
    first, second = cursor(after, 2)
    return number(first), number(second)
