"""The activity log: who did what, when, with what outcome.  It is kept by months, so that old ones go at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from coordinator.model import Boot, ItemId
from coordinator.store.pool import Connection

_NOTE = "INSERT INTO activity (who, action, target, outcome) VALUES ($1, $2, $3, $4)"

_NOTE_ALL = """
INSERT INTO activity (who, action, target, outcome) SELECT $1, $2, target, $4 FROM unnest($3::text[]) AS t (target)"""

_NOTE_ITEM = """
INSERT INTO activity (who, action, target, outcome) SELECT $1, $2, key, $4 FROM item WHERE item_id = $3"""

_NOTE_NODES = """
INSERT INTO activity (who, action, target, outcome) SELECT $1, 'node.gone', name, $3 FROM node WHERE boot = ANY ($2)"""

# One statement for each way to look, since one plan cannot be good for all: each walks an index of every month
# backwards, from behind the last page on, until it has a page.
_NEWEST = """
SELECT activity_id, at, who, action, target, outcome FROM activity
 WHERE at <= $1 AND (at, activity_id) < ($1, $2)
   AND ($3::timestamptz IS NULL OR at >= $3)
 ORDER BY at DESC, activity_id DESC LIMIT $4"""

_BY_ACTION = """
SELECT activity_id, at, who, action, target, outcome FROM activity
 WHERE at <= $1 AND (at, activity_id) < ($1, $2)
   AND ($3::timestamptz IS NULL OR at >= $3) AND action = $5
 ORDER BY at DESC, activity_id DESC LIMIT $4"""

_BY_TARGET = """
SELECT activity_id, at, who, action, target, outcome FROM activity
 WHERE at <= $1 AND (at, activity_id) < ($1, $2)
   AND ($3::timestamptz IS NULL OR at >= $3) AND target = $5 AND ($6::text IS NULL OR action = $6)
 ORDER BY at DESC, activity_id DESC LIMIT $4"""

_KEEP_MONTHS = "SELECT activity_keep($1)"

ActivityPlace = tuple[datetime, int]
"""Time and number of a line: where a page ends."""


async def note(db: Connection, who: str, action: str, target: str | None, outcome: str) -> None:
    """Write one line."""
    await db.execute(_NOTE, who, action, target, outcome)


async def note_all(db: Connection, who: str, action: str, targets: Sequence[str], outcome: str) -> None:
    """Write a line for each target."""
    await db.execute(_NOTE_ALL, who, action, list(targets), outcome)


async def note_item(db: Connection, who: str, action: str, item: ItemId, outcome: str) -> None:
    """Write a line about an item, by its key."""
    await db.execute(_NOTE_ITEM, who, action, item, outcome)


async def note_nodes(db: Connection, who: str, boots: Sequence[Boot], outcome: str) -> None:
    """Write that these starts of nodes are gone."""
    await db.execute(_NOTE_NODES, who, list(boots), outcome)


async def page(
    db: Connection,
    before: ActivityPlace,
    limit: int,
    *,
    target: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
) -> list[dict[str, Any]]:
    """Lines, newest first, from before `before` on."""
    if target is not None:
        rows = await db.fetch(_BY_TARGET, *before, since, limit, target, action)
    elif action is not None:
        rows = await db.fetch(_BY_ACTION, *before, since, limit, action)
    else:
        rows = await db.fetch(_NEWEST, *before, since, limit)

    return [dict(row) for row in rows]


async def keep(db: Connection, days: int) -> None:
    """Make the coming months ready, and drop the months in which all is older than so many days."""
    await db.execute(_KEEP_MONTHS, days)
