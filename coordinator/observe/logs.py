"""The log: one entry a line, as JSON or for the console, with all text of peers made harmless.

Ids of sessions, clients, services and buckets, and addresses, may stand in it.  Secrets, tokens, and messages of peers
as they came, which may hold both, may not.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Any, Literal

import orjson
import structlog

from coordinator.printable import printable, printable_json

_TRACES = ("exception", "stack")
"""Fields with lines of their own in the console, each indented so that none can pass for an entry."""

TRACE_MARGIN = "    | "

LogEntry = MutableMapping[str, Any]


MAX_ENTRIES_A_SECOND = 50
"""Entries of one kind that are written in one second: whoever causes them must not fill the disk."""

MAX_KINDS = 1000
"""Kinds of entries that are counted in one second; further ones share a count."""


class EntryLimiter:
    """Counts the entries of each kind in the running second."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._counts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def admit(self, kind: str) -> int | None:
        """Count an entry; returns how many of its kind were left out before it, or None to leave it out too."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._counts.clear()
        if kind not in self._counts and len(self._counts) >= MAX_KINDS:
            kind = ""

        self._counts[kind] += 1
        if self._counts[kind] <= MAX_ENTRIES_A_SECOND:
            return self._left_out.pop(kind, 0)
        self._left_out[kind if kind in self._left_out or len(self._left_out) < MAX_KINDS else ""] += 1
        return None

    def process(self, logger: object, method: str, entry: LogEntry) -> LogEntry:
        """Leave out an entry of structlog, or let it tell how many were left out before it."""
        left_out = self.admit(str(entry.get("event")))
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            entry["left_out"] = left_out
        return entry

    def filter(self, record: logging.LogRecord) -> bool:
        """Do the same for a record of the standard library; its kind is its text before it is filled in."""
        left_out = self.admit(str(record.msg))
        if left_out:
            record.msg = f"{record.msg} ({left_out} such entries were left out before)"
        return left_out is not None


def configure(style: Literal["json", "console"], level: str) -> None:
    """Log to standard error from now on; the loggers and warnings of libraries go the same way."""
    least = logging.getLevelNamesMapping()[level.upper()]

    limiter = EntryLimiter()
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
        processors=[limiter.process, *shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(limiter.filter)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )

    # It tells of each try to reach the database, with a traceback; a line of our own says when it goes and comes.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)

    # Not below warnings, whatever the level: libraries tell every frame then, secrets and all.
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)
    logging.captureWarnings(True)


def _harmless(logger: object, method: str, event: LogEntry) -> LogEntry:
    """Escape what could forge a line or move a cursor.

    Values that are no text are shown as Python writes them, which is harmless.
    """
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _trace(value) if name in _TRACES else printable(value)
    return event


def _trace(text: str) -> str:
    return "\n".join(TRACE_MARGIN + printable(line) for line in text.splitlines())


def _json(event: LogEntry, **_: Any) -> str:
    """Write the entry as JSON; characters that a terminal would act upon are escaped."""
    try:
        text = orjson.dumps(event, default=repr).decode()
    except orjson.JSONEncodeError:  # halves of characters
        return json.dumps(event, default=repr)
    return printable_json(text)
