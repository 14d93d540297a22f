"""Times and page cursors as they stand in messages of the admin and the stats channel."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from coordinator.errors import BadMessage

MAX_ROW_NUMBER = 2**62
"""Greater than the number of any row: where a table begins whose newest rows come first."""

# Times are RFC 3339, in UTC.


def time_text(moment: datetime) -> str:
    """Write a time."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def time_text_or_none(moment: datetime | None) -> str | None:
    """Write a time that may be missing."""
    return None if moment is None else time_text(moment)


def moment_of(text: str, path: str) -> datetime:
    """Read a time of a request; one without a zone is in UTC.

    Raises:
        BadMessage: it is no time; `path` is where it stands.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadMessage("A time is given as RFC 3339, in UTC.", detail={"path": path}) from None


def moment_or_none(text: str | None, path: str) -> datetime | None:
    """Read a time that may be left out.

    Raises:
        BadMessage: it is no time.
    """
    return None if text is None else moment_of(text, path)


# A cursor tells where a page ends: the `next` of one page is the `after` of the following request.


def cursor_text(*parts: object) -> str:
    """Write a cursor; only the first part may have a `|` in it."""
    return "|".join(map(str, parts))


def cursor(after: str, parts: int) -> list[str]:
    """Read the parts of an `after`.

    Raises:
        BadMessage: it has others.
    """
    found = after.rsplit("|", parts - 1)
    if len(found) != parts:
        raise bad_cursor()
    return found


def number(text: str) -> int:
    """Read a part of an `after` that is a number.

    Raises:
        BadMessage: it is none.
    """
    if not re.fullmatch(r"\d{1,18}", text):
        raise bad_cursor()
    return int(text)


def two_numbers(after: str | None) -> tuple[int, int]:
    """Read an `after` of two numbers; zeros, before all rows, if there is none.

    Raises:
        BadMessage: it is something else.
    """
    if after is None:
        return 0, 0
    first, second = cursor(after, 2)
    return number(first), number(second)


def bad_cursor() -> BadMessage:
    """Make the refusal of an `after` that no page ended with."""
    return BadMessage("`after` is the `next` of the page before.", detail={"path": "$.after"})
