"""Numbers of items and buckets in each state, from counters and small partial indexes, whatever the number of items.

The three tables that grow without bound are counted by triggers, one row a statement (`count_change`), which are
folded into one row a service (`service_count`).  Open buckets are few and are counted; all other items are settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from coordinator.model import ServiceId
from coordinator.store.pool import Connection

# Exact: one snapshot sees a change either here or there.
_STATE = """
WITH counted AS (
    SELECT service_id, coalesce(sum(number) FILTER (WHERE what = 'joined'), 0)::bigint AS joined,
           coalesce(sum(number) FILTER (WHERE what = 'waiting'), 0)::bigint AS waiting,
           coalesce(sum(number) FILTER (WHERE what = 'quarantined'), 0)::bigint AS quarantined
      FROM (SELECT service_id, what, number FROM service_count
            UNION ALL SELECT service_id, what, number FROM count_change) c
     GROUP BY service_id),
open AS (
    SELECT service_id, state, priority, sum(buckets)::bigint AS buckets, sum(items)::bigint AS items,
           min(since) AS since, min(rank_at) AS rank_at
      FROM (SELECT service_id, state, priority, since, rank_at, 1 AS buckets,
                   items_left(settled) AS items
              FROM bucket WHERE state = 'ready' AND split_at IS NULL
            UNION ALL SELECT service_id, state, priority, since, rank_at, 1, items_left(settled)
              FROM bucket WHERE split_at IS NOT NULL
            UNION ALL SELECT service_id, state, priority, since, rank_at, 1, items_left(settled)
              FROM bucket WHERE state IN ('claimed', 'dead')
            -- An item with a second copy counts once: as the urgent one, or not at all if either is settled.
            UNION ALL SELECT b.service_id, b.state, b.priority, b.since, b.rank_at, 0, -1
              FROM twin t
             CROSS JOIN LATERAL (
                   SELECT * FROM bucket
                    WHERE bucket_id = CASE
                          WHEN t.settled_by IS NULL
                               OR t.second_id = (SELECT k.bucket_id FROM claim k WHERE k.claim_id = t.settled_by)
                          THEN t.first_id ELSE t.second_id END
                      AND state <> 'done'
                   OFFSET 0) b) c
     GROUP BY service_id, state, priority)
SELECT s.service_id, coalesce(c.joined, 0) AS joined, coalesce(c.waiting, 0) AS waiting,
       coalesce(c.quarantined, 0) AS quarantined,
       o.state, o.priority, o.buckets, o.items, o.since, o.rank_at
  FROM service s LEFT JOIN counted c USING (service_id) LEFT JOIN open o USING (service_id)"""

# From one priority to the next, and of each the first by rank: as many looks into an index as there are priorities.
_FRONTS = """
WITH RECURSIVE front AS (
    SELECT s.service_id, f.* FROM service s
     CROSS JOIN LATERAL (
           SELECT priority, since, rank_at FROM waiting w WHERE w.service_id = s.service_id
            ORDER BY w.priority, w.rank_at, w.block LIMIT 1) f
    UNION ALL
    SELECT p.service_id, f.* FROM front p
     CROSS JOIN LATERAL (
           SELECT priority, since, rank_at FROM waiting w
            WHERE w.service_id = p.service_id AND w.priority > p.priority
            ORDER BY w.priority, w.rank_at, w.block LIMIT 1) f)
SELECT service_id, priority, since, rank_at FROM front"""

# What waits in no bucket and what stands in ready ones, by how long: a row for each 1,024 items that were added
# together, and one a bucket.  $2 is where each age but the first begins, in seconds.
_AGES = """
SELECT width_bucket(greatest(extract(epoch FROM now() - w.since), 0)::float8, $2::float8[]) AS age,
       sum(w.items)::bigint AS items
  FROM (SELECT since, items FROM waiting WHERE service_id = $1
        UNION ALL SELECT since, items_left(settled) FROM bucket
         WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL) w
 GROUP BY 1 ORDER BY 1"""

_FOLD = """
WITH folded AS (
    DELETE FROM count_change
     WHERE change_id IN (SELECT change_id FROM count_change ORDER BY change_id LIMIT 10000 FOR UPDATE SKIP LOCKED)
    RETURNING service_id, what, number)
INSERT INTO service_count AS c (service_id, what, number)
SELECT service_id, what, sum(number) FROM folded GROUP BY service_id, what ORDER BY service_id, what
ON CONFLICT (service_id, what) DO UPDATE SET number = c.number + excluded.number"""


@dataclass(slots=True)
class OldestItem:
    """The oldest unclaimed item of a priority: since when it waits, and its rank."""

    since: datetime
    rank_at: datetime


@dataclass(slots=True)
class ServiceTotals:
    """Items and open buckets of one service; `ready`, `claimed` and `dead` are items in such buckets.

    Each item is in one of waiting, ready, claimed, dead, settled, quarantined; their sum is `total`.
    """

    total: int
    waiting: int
    quarantined: int
    ready: int = 0
    claimed: int = 0
    dead: int = 0
    settled: int = 0
    buckets: dict[str, int] = field(default_factory=lambda: {"ready": 0, "claimed": 0, "dead": 0})
    oldest: dict[int, OldestItem] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """The number of items that a client could still settle."""
        return self.waiting + self.ready + self.claimed + self.dead


async def state(db: Connection) -> dict[ServiceId, ServiceTotals]:
    """Count the items and buckets of every service; `oldest` has those that stand in ready buckets."""
    found: dict[ServiceId, ServiceTotals] = {}
    for row in await db.fetch(_STATE):
        service = ServiceId(row["service_id"])
        totals = found.setdefault(service, ServiceTotals(row["joined"], row["waiting"], row["quarantined"]))
        if row["state"] is None:
            continue
        totals.buckets[row["state"]] += row["buckets"]
        setattr(totals, row["state"], getattr(totals, row["state"]) + row["items"])
        if row["state"] == "ready":
            totals.oldest[row["priority"]] = OldestItem(row["since"], row["rank_at"])

    for totals in found.values():
        totals.settled = totals.total - totals.left - totals.quarantined
    return found


async def add_fronts(db: Connection, states: Mapping[ServiceId, ServiceTotals]) -> None:
    """Add to `oldest` the items that are in no bucket yet."""
    for row in await db.fetch(_FRONTS):
        totals = states.get(ServiceId(row["service_id"]))
        if totals is None:
            continue
        known = totals.oldest.setdefault(row["priority"], OldestItem(row["since"], row["rank_at"]))
        known.since, known.rank_at = min(known.since, row["since"]), min(known.rank_at, row["rank_at"])


async def ages(db: Connection, service: ServiceId, begins: Sequence[float]) -> list[int]:
    """Count the items that wait, by age: below the first of `begins` (seconds), from there to the next, and so on."""
    counted = {row["age"]: row["items"] for row in await db.fetch(_AGES, service, list(begins))}
    return [counted.get(age, 0) for age in range(len(begins) + 1)]


async def fold(db: Connection) -> int:
    """Fold the changes of the counts into one row a service; returns how many counts changed.

    Any node may do it, at any time.
    """
    return int((await db.execute(_FOLD)).split()[-1])
