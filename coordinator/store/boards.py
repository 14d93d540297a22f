"""Items that each client settled this day, this week from Monday on, this month, and in all; days are those of UTC."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import neg
from typing import Literal, get_args

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

Span = Literal["day", "week", "month", "all"]

SPANS: tuple[Span, ...] = get_args(Span)

ROWS_AT_ONCE = 5000
"""Rows of days that are over, and of weeks and months, that one statement moves or deletes."""

_ADD_DAYS = """
INSERT INTO client_day AS c (day, client_id, service_id, settled)
SELECT now()::date, client_id, service_id, settled
  FROM unnest($1::text[], $2::int[], $3::bigint[]) AS d (client_id, service_id, settled)
 ORDER BY client_id, service_id
ON CONFLICT (day, client_id, service_id) DO UPDATE SET settled = c.settled + excluded.settled"""


async def add_days(db: Connection, settled: Sequence[tuple[str, int, int]]) -> None:
    """Add (client, service, items settled) each to this day."""
    await db.execute(_ADD_DAYS, *([row[n] for row in settled] for n in range(3)))


# A flush that began before midnight may still add to a day that is over: its rows come anew, and are moved next time.
_FOLD_DAYS = """
WITH over AS (
    DELETE FROM client_day WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM client_day WHERE day < now()::date
         ORDER BY day, client_id, service_id LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING day, client_id, service_id, settled)
INSERT INTO client_period AS c (period, begins, client_id, service_id, settled)
SELECT p.period, date_trunc(p.period, over.day)::date AS begins, over.client_id, over.service_id, sum(over.settled)
  FROM over CROSS JOIN (VALUES ('week'), ('month')) AS p (period)
 WHERE date_trunc(p.period, over.day) >= date_trunc(p.period, now())
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
ON CONFLICT (period, begins, client_id, service_id) DO UPDATE SET settled = c.settled + excluded.settled"""

_FORGET_PERIODS = """
DELETE FROM client_period WHERE ctid = ANY (ARRAY (
    SELECT o.ctid FROM (VALUES ('week'), ('month')) AS p (period)
     CROSS JOIN LATERAL (
           SELECT ctid FROM client_period
            WHERE period = p.period AND begins < date_trunc(p.period, now())::date LIMIT $1) o))"""


async def fold_days(db: Connection) -> None:
    """Move some rows of days that are over into their week and month, and drop some of weeks and months that are over.

    What a span has in all is the same before and after, so it does not matter when this is done.
    """
    await db.execute(_FOLD_DAYS, ROWS_AT_ONCE)
    await db.execute(_FORGET_PERIODS, ROWS_AT_ONCE)


# $1 span
# $2 service, or null: all
# $3 leaders
_BOARD = """
WITH counted AS MATERIALIZED (
    SELECT client_id, settled FROM settled_in($1, $2) WHERE settled > 0),
leader AS MATERIALIZED (
    SELECT l.client_id, l.settled, c.screen_name,
           EXISTS (SELECT FROM membership m WHERE m.client_id = l.client_id AND m.health = 'flagged') AS flagged
      FROM (SELECT client_id, settled FROM counted ORDER BY settled DESC, client_id LIMIT $3) l
      JOIN client c USING (client_id))
SELECT ARRAY (SELECT settled FROM counted ORDER BY settled DESC) AS standings,
       ARRAY (SELECT client_id FROM leader ORDER BY settled DESC, client_id) AS client_ids,
       ARRAY (SELECT settled FROM leader ORDER BY settled DESC, client_id) AS settled,
       ARRAY (SELECT screen_name FROM leader ORDER BY settled DESC, client_id) AS screen_names,
       ARRAY (SELECT flagged FROM leader ORDER BY settled DESC, client_id) AS flagged"""

# $1 span
# $2 service, or null: all
# $3 and $4 the last row's items and client
# $5 rows
_PAGE = """
SELECT l.client_id, c.screen_name, l.settled, l.place,
       EXISTS (SELECT FROM membership m WHERE m.client_id = l.client_id AND m.health = 'flagged') AS flagged
  FROM (SELECT client_id, settled, rank() OVER (ORDER BY settled DESC) AS place FROM settled_in($1, $2)) l
  JOIN client c USING (client_id)
 WHERE l.settled > 0 AND (l.settled < $3 OR (l.settled = $3 AND l.client_id > $4))
 ORDER BY l.settled DESC, l.client_id LIMIT $5"""

_OF_CLIENT = """
SELECT s.span, coalesce((SELECT w.settled FROM settled_in(s.span, NULL) w WHERE w.client_id = $1), 0) AS settled
  FROM unnest($2::text[]) AS s (span)"""


@dataclass(frozen=True, slots=True)
class Leader:
    """A client's place in a span; those who settled as much share a place.  `flagged`: in some service."""

    place: int
    client_id: str
    screen_name: str
    settled: int
    flagged: bool


@dataclass(frozen=True, slots=True)
class Board:
    """The first clients of a span, and what each of all its clients settled, the most first."""

    leaders: list[Leader]
    standings: list[int]
    total: int

    def place_of(self, settled: int) -> int:
        """Return the place of who settled so much."""
        return bisect_left(self.standings, -settled, key=neg) + 1


async def board(db: Connection, span: Span, service: ServiceId | None, most: int) -> Board:
    """Read who settled most in a span, at most so many, and the figures of all."""
    row = await db.fetchrow(_BOARD, span, service, most)
    standings: list[int] = row["standings"]
    found = Board([], standings, sum(standings))
    columns = zip(row["client_ids"], row["screen_names"], row["settled"], row["flagged"], strict=True)
    found.leaders.extend(
        Leader(found.place_of(settled), client, name, settled, flagged) for client, name, settled, flagged in columns
    )
    return found


async def page(
    db: Connection, span: Span, service: ServiceId | None, after: tuple[int, str], limit: int
) -> list[Leader]:
    """List clients by items settled in a span, the most first, from behind `after` (items, client) on."""
    return [Leader(**row) for row in await db.fetch(_PAGE, span, service, *after, limit)]


async def of_client(db: Connection, client: str) -> dict[Span, int]:
    """Count what a client settled in each span."""
    found = {row["span"]: row["settled"] for row in await db.fetch(_OF_CLIENT, client, list(SPANS))}
    return {span: found[span] for span in SPANS}
