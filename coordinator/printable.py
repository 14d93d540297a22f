"""Text of strangers made harmless for terminals and logs: nothing in it moves a cursor, ends a line or is not seen."""

from __future__ import annotations

import logging
import re

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Characters that end a line, move the cursor, turn the direction of writing, or are not seen."""


def printable(text: str) -> str:
    r"""Write characters of that kind as Python escapes them: ESC becomes `\x1b`."""
    return _UNSEEN.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Do the same, but keep the ends of lines that a sentence of ours may have."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    r"""Write them in JSON text as JSON may escape them, so that it means the same: CSI becomes `\u009b`."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class PrintableFormatter(logging.Formatter):
    """Formats records of the standard library, whose arguments may be what a server sent, on one harmless line each."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")
