"""Where a page of a table ends: the `next` of one page is the `after` of the following request."""

from __future__ import annotations

import re

from coordinator.errors import BadMessage

MAX_ROW_NUMBER = 2**62
"""Greater than the number of any row: where a table begins whose newest rows come first."""


def cursor_text(*parts: object) -> str:
    """Write the place of a page's last row; only the first part may have a `|` in it."""
    return "|".join(map(str, parts))


def cursor_parts(after: str, count: int) -> list[str]:
    """Read the parts of an `after`.

    Raises:
        BadMessage: it has others.
    """
    parts = after.rsplit("|", count - 1)
    if len(parts) != count:
        raise bad_cursor()
    return parts


def cursor_number(text: str) -> int:
    """Read a part that is a number.

    Raises:
        BadMessage: it is none.
    """
    if not re.fullmatch(r"\d{1,18}", text):
        raise bad_cursor()
    return int(text)


def bad_cursor() -> BadMessage:
    """Make the refusal of an `after` that no page ended with."""
    return BadMessage("`after` is the `next` of the page before.", detail={"path": "$.after"})
