"""The log: one entry a line, as JSON or for the console, with all text of peers made harmless.

Ids of sessions, clients, services and buckets, and addresses, may stand in it.  Secrets, tokens, and messages of peers
as they came, which may hold both, may not.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import orjson
import structlog

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Characters that end a line, move the cursor, turn the direction of writing, or are not seen."""

_TRACES = ("exception", "stack")
"""Fields with lines of their own in the console, each indented so that none can pass for an entry."""

TRACE_MARGIN = "    | "

LogEntry = MutableMapping[str, Any]


def configure(style: Literal["json", "console"], level: str) -> None:
    """Log to standard error from now on; the loggers and warnings of libraries go the same way."""
    least = logging.getLevelNamesMapping()[level.upper()]

    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer(serializer=_json)]
        if style == "json"
        else [
            _harmless,
            # Never the formatter that shows local variables: there are secrets among them.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )

    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )

    # Not below warnings, whatever the level: libraries tell every frame then, secrets and all.
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)
    logging.captureWarnings(True)


def _harmless(logger: object, method: str, event: LogEntry) -> LogEntry:
    """Escape what could forge a line or move a cursor.

    Values that are no text are shown as Python writes them, which is harmless.
    """
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _trace(value) if name in _TRACES else _UNSEEN.sub(_escaped, value)
    return event


def _trace(text: str) -> str:
    return "\n".join(TRACE_MARGIN + _UNSEEN.sub(_escaped, line) for line in text.splitlines())


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def _json(event: LogEntry, **_: Any) -> str:
    """Write the entry as JSON; characters that a terminal would act upon are escaped."""
    try:
        text = orjson.dumps(event, default=repr).decode()
    except orjson.JSONEncodeError:  # halves of characters
        return json.dumps(event, default=repr)
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
