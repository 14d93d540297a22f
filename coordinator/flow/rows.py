"""What the steps behind the admin channel share: rows as admins see them, pages and their cursors, times."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from coordinator.errors import BadMessage
from coordinator.model import ServiceId
from coordinator.store import items
from coordinator.store.pool import Connection
from coordinator.wire import admin as wire

Fields = dict[str, Any]
"""What an `ok` carries."""


def result_row(row: items.ResultRow) -> Fields:
    """A result with its origin."""
    return {
        "service": row.service,
        "item": row.item,
        "key": row.key,
        "value": row.value,
        "client_id": row.client_id,
        "session_id": str(row.session_id),
        "bucket_id": str(row.bucket_id),
        "claim": row.claim,
        "at": time_text(row.at),
        "valid": row.valid,
    }


def page(rows: list[Fields], limit: int, name: Callable[[Fields], str], found: int) -> Fields:
    """One page of the `found` rows that are left."""
    return {"rows": rows, "next": name(rows[-1]) if rows and found > limit else None}


def time_text(moment: datetime) -> str:
    """RFC 3339, UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment_of(text: str, path: str) -> datetime:
    """A time of a request.

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


async def result_page(
    db: Connection,
    service: ServiceId,
    request: wire.ResultList,
    *,
    key: str | None = None,
    client: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Fields:
    """One page of results with their origin, in the order of their claims."""
    after = (0, 0) if request.after is None else tuple(map(number, cursor(request.after, 2)))
    found = await items.results(
        db, service, (after[0], after[1]), request.limit, key=key, client=client, since=since, until=until
    )
    last = f"{found[-1].claim}|{found[-1].item}" if len(found) == request.limit else None
    return {"rows": [result_row(row) for row in found], "next": last}
