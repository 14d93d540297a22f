"""What the steps behind the admin channel share: rows as admins see them, pages and their cursors, times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from coordinator.model import ServiceId
from coordinator.store import items
from coordinator.store.pool import Connection
from coordinator.wire import admin as wire
from coordinator.wire.paging import cursor as cursor
from coordinator.wire.paging import moment_of as moment_of
from coordinator.wire.paging import moment_or_none as moment_or_none
from coordinator.wire.paging import number as number
from coordinator.wire.paging import time_text as time_text

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
