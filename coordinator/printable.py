"""Text of strangers made harmless for terminals and logs: nothing in it moves a cursor, ends a line or is not seen."""

from __future__ import annotations

import logging
import re
from typing import Any

_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)
"""Characters that end a line, move the cursor, turn the direction of writing, or are not seen."""


def printable(text: str) -> str:
    r"""Write characters of that kind as Python escapes them: ESC becomes `\x1b`."""
    return _UNSEEN.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Do the same, but keep the ends of lines that a sentence of ours may have."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    r"""Write them in JSON text as JSON may escape them, so that it means the same: CSI becomes `\u009b`."""
    return _UNSEEN.sub(_escaped_in_json, text)


class PrintableFormatter(logging.Formatter):
    """Formats records of the standard library, whose arguments may be what a server sent, on one harmless line each."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    | {printable(line)}" for line in lines)  # so that none can pass for a record


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def _escaped_in_json(match: re.Match[str]) -> str:
    """Escape a character as JSON does, which has two escapes for one beyond the first 65,536."""
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
