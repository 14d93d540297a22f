"""The clock's look for work in all services at once: it costs one statement, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.model import Service, ServiceId
from coordinator.store.building import MAX_READY
from coordinator.store.fronts import PoolPlace
from coordinator.store.pool import Connection

# $1 services
# $2 seconds without a result after which a bucket is dead
# $3 seconds after which a dead one is freed
# $4 seconds after which a client is made inactive
# $5 items of a bucket
# $6 buckets that a client may ask for at once
# $7 ready buckets of a service at most
# $8 rank, and $9 shuffle number, before which nothing is ready
_DUE = """
WITH round AS MATERIALIZED (SELECT * FROM note_round())
SELECT s.service_id, coalesce(round.seconds, 0) AS missed, coalesce(round.credit, 0) AS credit,
       EXISTS (SELECT FROM bucket b
                WHERE b.service_id = s.service_id AND b.state = 'claimed' AND b.kept_until IS NULL
                  AND b.touched_at <= counted_since(s.dead_after)) AS dead,
       EXISTS (SELECT FROM bucket b
                WHERE b.service_id = s.service_id AND b.state = 'dead'
                  AND b.touched_at <= counted_since(s.release_after)) AS over,
       EXISTS (SELECT FROM bucket b WHERE b.service_id = s.service_id AND b.split_at <= now()) AS broken,
       EXISTS (SELECT FROM membership m
                WHERE m.service_id = s.service_id AND m.joined AND m.inactive IS NULL
                  AND m.last_access < now() - make_interval(secs => s.idle_after)) AS idle,
       p.front < p.back
       OR p.waiting >= s.size
          AND (SELECT count(*) FROM (SELECT FROM bucket b
                                      WHERE b.service_id = s.service_id AND b.state = 'ready' AND b.split_at IS NULL
                                        AND (b.rank_at, b.shuffle) >= (s.front_rank, s.front_shuffle)
                                      LIMIT p.target) r) < p.target AS low,
       EXISTS (SELECT FROM bucket WHERE kept_until <= now()) AS kept,
       EXISTS (SELECT FROM bucket WHERE state = 'done' AND indexed) AS done
  FROM round
 CROSS JOIN unnest($1::int[], $2::float8[], $3::float8[], $4::float8[], $5::int[], $6::int[],
                   $8::timestamptz[], $9::uuid[])
       AS s (service_id, dead_after, release_after, idle_after, size, asked, front_rank, front_shuffle)
  CROSS JOIN LATERAL (
       SELECT w.front, w.waiting,
              (SELECT b.rank_at FROM bucket b
                WHERE b.service_id = s.service_id AND b.state = 'ready' AND b.split_at IS NULL
                ORDER BY b.rank_at DESC LIMIT 1) AS back,
              least($7, 2 * s.asked * (
                SELECT count(*) FROM (SELECT FROM membership m
                                       WHERE m.service_id = s.service_id AND m.joined AND m.inactive IS NULL
                                       LIMIT $7) c)) AS target
         FROM (SELECT min(f.rank_at) AS front, coalesce(sum(cardinality(f.offsets)), 0) AS waiting
                 FROM waiting_front(s.service_id, '-infinity', 0, s.size) f) w
       OFFSET 0) p"""


@dataclass(frozen=True, slots=True)
class DueWork:
    """Work of the clock that is due for one service.

    `dead`: buckets had no result for too long; `over`: dead ones are to be freed; `broken`: some are to be cut up;
    `idle`: clients may have to be made inactive; `low`: buckets may have to be made.  Of all services, and told with
    each: `kept`: buckets of a drained node were kept long enough; `done`: some done ones are to be put away; `missed`:
    seconds of an outage that has just ended, of which `credit` do not count for what was held then; less than 0 if the
    clock was set back by so many.
    """

    service_id: ServiceId
    missed: float
    credit: float
    dead: bool
    over: bool
    broken: bool
    idle: bool
    low: bool
    kept: bool
    done: bool


async def look(db: Connection, services: Sequence[Service], starts: Sequence[PoolPlace]) -> dict[ServiceId, DueWork]:
    """Note that a round is run, and find the services that it has to look at more closely; cheap if nothing is due.

    Nothing that is ready is looked for before the `starts` of the services.
    """
    settings = [service.settings for service in services]
    rows = await db.fetch(
        _DUE,
        [service.service_id for service in services],
        [setting.dead_after for setting in settings],
        [setting.release_after for setting in settings],
        [setting.idle_after for setting in settings],
        [setting.bucket_size for setting in settings],
        [setting.max_buckets_per_ask for setting in settings],
        MAX_READY,
        [rank for rank, _ in starts],
        [shuffle for _, shuffle in starts],
    )

    return {row["service_id"]: DueWork(**{**row, "low": bool(row["low"])}) for row in rows}
