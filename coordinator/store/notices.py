"""Messages of operators to clients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.model import ClientId, NoticeLevel, ServiceId
from coordinator.store.pool import Connection

MAX_IN_FORCE = 5000
"""Messages that may be in force: each node keeps them all in memory, at most 2,000 characters each."""

MAX_FOR_ONE_ADDRESSEE = 20
"""Messages that may be in force for one client, for one service, or for all: every `welcome` has them."""


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """A message in force: to a client, to the members of a service, or, where both are None, to all.

    `seconds`: for how long it still is in force; None: until it is withdrawn.
    """

    notice_id: int
    at: datetime
    level: NoticeLevel
    text: str
    client_id: ClientId | None
    service_id: ServiceId | None
    service: str | None
    until: datetime | None
    seconds: float | None


# Two at once must not both take the last place.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('coordinator.notice'))"

# $1 text
# $2 level
# $3 client
# $4 service
# $5 until
# $6 most in force
# $7 most for one addressee
_SEND = """
WITH present AS (
    SELECT count(*) AS number,
           count(*) FILTER (WHERE client_id IS NOT DISTINCT FROM $3
                              AND (client_id IS NOT NULL OR service_id IS NOT DISTINCT FROM $4)) AS for_this_one
      FROM notice_in_force)
INSERT INTO notice (text, level, client_id, service_id, until)
SELECT $1, $2, $3, $4, $5 FROM present WHERE number < $6 AND for_this_one < $7
RETURNING notice_id"""

_WITHDRAW = "DELETE FROM notice WHERE notice_id = $1 AND (until IS NULL OR until > now()) RETURNING notice_id"

_ALL = "SELECT * FROM notice_in_force ORDER BY notice_id"

_FIND = "SELECT * FROM notice_in_force WHERE notice_id = $1"

_PAGE = "SELECT * FROM notice_in_force WHERE notice_id > $1 ORDER BY notice_id LIMIT $2"


async def send(
    db: Connection,
    text: str,
    level: NoticeLevel,
    client: ClientId | None,
    service: ServiceId | None,
    until: datetime | None,
) -> int | None:
    """Keep a message, within a transaction; returns its number, None if too many are in force."""
    await db.execute(_LOCK)
    number: int | None = await db.fetchval(
        _SEND, text, level, client, service, until, MAX_IN_FORCE, MAX_FOR_ONE_ADDRESSEE
    )
    return number


async def withdraw(db: Connection, number: int) -> bool:
    """End a message; False if none of that number is in force."""
    return await db.fetchval(_WITHDRAW, number) is not None


async def in_force(db: Connection) -> list[StoredNotice]:
    """Read all messages in force, oldest first."""
    return [_read(row) for row in await db.fetch(_ALL)]


async def find(db: Connection, number: int) -> StoredNotice | None:
    """Read the message of that number, if it is in force."""
    row = await db.fetchrow(_FIND, number)
    return None if row is None else _read(row)


async def page(db: Connection, after: int, limit: int) -> list[StoredNotice]:
    """Read messages in force, oldest first, behind the number `after`."""
    return [_read(row) for row in await db.fetch(_PAGE, after, limit)]


def _read(row: Any) -> StoredNotice:
    return StoredNotice(**row)
