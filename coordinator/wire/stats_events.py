"""Events as the stats channel tells them.  protocol.md, "Tables" """

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

EventKind = Literal[
    "connect", "disconnect", "release", "dead", "lost", "fault", "admin", "health", "node", "quarantine", "register",
    "limited", "refused",
]  # fmt: skip

Severity = Literal["info", "warning", "error"]
"""Whether an event asks for a look: the work goes on as it should, a client or a node is in trouble, the server is."""

SEVERITIES: Mapping[EventKind, Severity] = {
    "connect": "info",
    "disconnect": "info",
    "release": "info",
    "dead": "warning",
    "lost": "info",
    "fault": "error",
    "admin": "info",
    "health": "warning",
    "node": "info",
    "quarantine": "error",
    "register": "info",
    "limited": "warning",
    "refused": "warning",
}
"""The severity of each kind of event, unless the event has one of its own."""


class EventRow(Struct):
    """Something that happened, after it did; newest first in tables.  `node` is the name of the one that tells it."""

    event_id: int
    at: str
    kind: EventKind
    severity: Severity
    node: str | None
    client_id: str | None
    service: str | None
    bucket_id: str | None
    text: str
