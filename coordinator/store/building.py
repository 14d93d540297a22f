"""Making buckets of waiting items.

Whoever moves items between `waiting` and buckets holds the builder's lock of that service, so that deleting and
prioritising never miss an item that is on its way.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from coordinator.model import BucketId, ItemId, ServiceId
from coordinator.store.pool import Connection

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('coordinator.builder'), $1)"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('coordinator.builder'), $1)"


async def lock(db: Connection, services: Iterable[ServiceId]) -> None:
    """Wait for the builder's lock of each service, until the transaction ends."""
    for service in sorted(services):
        await db.execute(_LOCK, service)


async def try_lock(db: Connection, service: ServiceId) -> bool:
    """Take the builder's lock if nobody has it."""
    return bool(await db.fetchval(_TRY_LOCK, service))


MAX_READY = 10_000
"""Ready buckets of a service at most, so that looking whether there are enough stays cheap with any number of clients:
a hundred runs of the builder, and more than a node hands out in ten seconds."""


@dataclass(frozen=True, slots=True)
class NewBucket:
    """A bucket to be put into the pool; `frame` is the JSON array of its items, in the order of `items`."""

    bucket_id: BucketId
    service_id: ServiceId
    rank_at: datetime
    since: datetime
    priority: int
    items: Sequence[ItemId]
    frame: str
    twins: bool = False


# Shuffled by $5, eight random bytes for each item: the operating system gives them all at once, but gen_random_uuid()
# would ask it for each item, which costs more than all the rest.
#
# Items of different priority do not share a bucket, so that an urgent one does not carry others with it; all buckets of
# a run and priority have the same rank.  What would fill no whole bucket stays behind, the youngest of it, unless short
# ones are wanted or it would wait behind a bucket that ranks after it.
#
# What came so late that an item of this run must not wait behind it ($8 seconds after its rank, the cap of all head
# starts) is left for the next run, for all buckets of a run rank as the first of them.
#
# Items of a row that stand side by side in the catalogue are looked up by their range, at a third of the cost.  Buckets
# are found by the blocks of their run, where these are few: nearly all of them have an item in each bucket.
#
# With $9, nothing is made unless so few wait that they fill no bucket, none is ready, and nobody has the lock: the few
# items that have just come are found, locked and made into buckets by one statement.  The holder of the lock until just
# now may have taken items that this still sees: their rows are gone or changed, so that neither DELETE nor UPDATE finds
# them, and what these do not return is not made into buckets.
#
# $1 service
# $2 items to take at most
# $3 items of a bucket
# $4 whether short buckets are wanted
# $5 eight random bytes for each item
# $6 rank behind which the queue begins
# $7 block of that rank with which it begins
# $8 seconds after the first rank within which items come together
# $9 whether only few are to be made into buckets
_MAKE = """
WITH front AS MATERIALIZED (
    SELECT f.*, greatest(0, least(cardinality(offsets), $2 - before)) AS offered,
           since > first_value(rank_at) OVER (ORDER BY before) + make_interval(secs => $8) AS late
      FROM waiting_front($1, $6, $7, $2) AS f
     WHERE NOT $9
        OR ((SELECT sum(cardinality(offsets)) FROM waiting_front($1, $6, $7, $3)) < $3
            AND NOT EXISTS (SELECT FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL)
            AND (SELECT pg_try_advisory_xact_lock(hashtext('coordinator.builder'), $1))
            AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off')),
counted AS (
    SELECT priority, sum(offered) AS n, min(rank_at) AS rank_at FROM front WHERE NOT late GROUP BY priority),
run AS MATERIALIZED (
    SELECT priority, rank_at,
           n - CASE WHEN $4 OR EXISTS (SELECT FROM front WHERE late)
                         OR EXISTS (SELECT FROM counted o WHERE o.rank_at > c.rank_at AND o.n >= $3) THEN 0
                    ELSE n % $3 END AS whole
      FROM counted c),
share AS MATERIALIZED (
    SELECT f.*,
           CASE WHEN late THEN 0
                ELSE greatest(0, least(offered, whole + offered
                                       - sum(offered) OVER (PARTITION BY f.priority, late ORDER BY before)))
           END::int AS taken
      FROM front f LEFT JOIN run r ON r.priority = f.priority),
emptied AS (
    DELETE FROM waiting w USING share s WHERE w.ctid = s.place AND s.taken = cardinality(s.offsets)
    RETURNING s.block, s.since, s.priority, s.before, s.offsets),
reduced AS (
    UPDATE waiting w SET offsets = s.offsets[s.taken + 1:]
      FROM share s WHERE w.ctid = s.place AND s.taken > 0 AND s.taken < cardinality(s.offsets)
    RETURNING s.block, s.since, s.priority, s.before, s.offsets[:s.taken]),
gone AS MATERIALIZED (
    SELECT block, since, priority, before, offsets, item_at(block, offsets[1]) AS first,
           item_at(block, offsets[cardinality(offsets)]) AS last
      FROM (SELECT * FROM emptied UNION ALL SELECT * FROM reduced) AS either),
scattered AS MATERIALIZED (
    SELECT item_at(block, o) AS item_id, since, priority, before + n AS chance
      FROM gone CROSS JOIN unnest(offsets) WITH ORDINALITY AS u (o, n) WHERE last - first >= cardinality(offsets)),
known AS (
    SELECT i.item_id, since, priority, i.fragment, before + 1 + (i.item_id - first) AS chance
      FROM gone
     CROSS JOIN LATERAL (
           SELECT item_id, item_json(item_id, key, attributes) AS fragment
             FROM item WHERE item_id BETWEEN first AND last OFFSET 0) i
     WHERE last - first < cardinality(offsets)
    UNION ALL
    SELECT i.item_id, since, priority, item_json(i.item_id, i.key, i.attributes), chance
      FROM scattered
      JOIN (SELECT * FROM item WHERE item_id = ANY (ARRAY (SELECT item_id FROM scattered)) OFFSET 0) i USING (item_id)),
shuffled AS (
    SELECT item_id, since, priority, fragment,
           (row_number() OVER (PARTITION BY priority ORDER BY substr($5::bytea, (8 * chance - 7)::int, 8)) - 1) / $3
               AS part
      FROM known),
parts AS MATERIALIZED (
    SELECT gen_random_uuid() AS bucket_id, priority, min(since) AS since, array_agg(item_id) AS items,
           '[' || string_agg(fragment, ',') || ']' AS frame
      FROM shuffled GROUP BY priority, part),
listed AS (
    INSERT INTO bucket_items (bucket_id, items) SELECT bucket_id, items FROM parts),
blocks AS MATERIALIZED (
    SELECT array_agg(DISTINCT block) AS all_blocks FROM gone),
opened AS (
    INSERT INTO open_bucket (bucket_id, blocks, frame)
    SELECT bucket_id, CASE WHEN cardinality(all_blocks) <= 32 THEN all_blocks ELSE item_blocks(items) END, frame
      FROM parts CROSS JOIN blocks),
put AS (
    INSERT INTO bucket (bucket_id, service_id, rank_at, since, priority, settled)
    SELECT p.bucket_id, $1, r.rank_at, p.since, p.priority, repeat('0', cardinality(p.items))::varbit
      FROM parts p JOIN run r USING (priority)
    RETURNING bucket_id)
SELECT (SELECT count(*) FROM put) AS made, next.rank_at, next.block
  FROM (SELECT rank_at, block FROM share
         ORDER BY taken = cardinality(offsets), CASE WHEN taken < cardinality(offsets) THEN before ELSE -before END
         LIMIT 1) next"""

QueuePlace = tuple[datetime, int]
"""Where in a queue: rank and block of items."""

QUEUE_START: QueuePlace = (datetime.fromisoformat("0001-01-01T00:00:00+00:00"), 0)
"""Before all that waits."""

DEFAULT_SPAN = 86_400.0
"""Seconds: the span of a run of a service with the usual settings."""


async def make(
    db: Connection,
    service: ServiceId,
    limit: int,
    size: int,
    *,
    short: bool,
    start: QueuePlace = QUEUE_START,
    span: float = DEFAULT_SPAN,
) -> tuple[int, QueuePlace]:
    """Make buckets of `size` items of those `limit` that rank first.

    It runs within a transaction that holds the builder's lock.

    Chance decides which items come together, among those that came no later than `span` seconds after the rank of the
    first.  With `short`, buckets are also made of too few items; without it, only of those that would be overtaken.
    Nothing is looked for before `start`.  Returns how many buckets were made, and where to start the next time.
    """
    chance = secrets.token_bytes(8 * limit)
    row = await db.fetchrow(_MAKE, service, limit, size, short, chance, *start, span, False)
    return (row["made"], (row["rank_at"], row["block"])) if row else (0, start)


async def make_few(db: Connection, service: ServiceId, size: int, span: float = DEFAULT_SPAN) -> int:
    """Make short buckets of all that waits if it fills no bucket of `size` and no bucket is ready; returns how many.

    It runs within a transaction of its own, which others see before it has reached the disk, as with `look`.
    """
    chance = secrets.token_bytes(8 * size)
    row = await db.fetchrow(_MAKE, service, size, size, True, chance, *QUEUE_START, span, True)
    return int(row["made"]) if row else 0


# $1 buckets
# $2 their services
# $3 their ranks
# $4 since when the longest wait among their items lasts
# $5 their priorities
# $6 their frames
# $7 whether some of their items stand in a second bucket
# $8 of each item the bucket, by its number from 1 on
# $9 items
_PUT = """
WITH made AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::timestamptz[], $5::int[], $6::text[], $7::bool[])
               WITH ORDINALITY AS b (bucket_id, service_id, rank_at, since, priority, frame, twins, n)),
listed AS MATERIALIZED (
    SELECT n, array_agg(item_id ORDER BY place) AS items
      FROM unnest($8::int[], $9::bigint[]) WITH ORDINALITY AS i (n, item_id, place) GROUP BY n),
stored AS (
    INSERT INTO bucket_items (bucket_id, items) SELECT bucket_id, items FROM made JOIN listed USING (n)),
opened AS (
    INSERT INTO open_bucket (bucket_id, blocks, frame)
    SELECT bucket_id, item_blocks(items), frame FROM made JOIN listed USING (n))
INSERT INTO bucket (bucket_id, service_id, rank_at, since, priority, settled, twins)
SELECT bucket_id, service_id, rank_at, since, priority, repeat('0', cardinality(items))::varbit, twins
  FROM made JOIN listed USING (n)"""


async def put_buckets(db: Connection, buckets: Sequence[NewBucket]) -> None:
    """Put new buckets into the pool; within the transaction that took their items."""
    await db.execute(
        _PUT,
        [bucket.bucket_id for bucket in buckets],
        [bucket.service_id for bucket in buckets],
        [bucket.rank_at for bucket in buckets],
        [bucket.since for bucket in buckets],
        [bucket.priority for bucket in buckets],
        [bucket.frame for bucket in buckets],
        [bucket.twins for bucket in buckets],
        [n for n, bucket in enumerate(buckets, 1) for _ in bucket.items],
        [item for bucket in buckets for item in bucket.items],
    )


@dataclass(frozen=True, slots=True)
class ReadyPool:
    """The ready pool of a service.

    `workers` counts the clients that may ask, `ready` the buckets, both up to a limit.  `back` is the rank of the last
    bucket, `front` the rank of the first waiting items, `first` their block; `waiting` counts waiting items up to the
    asked limit.
    """

    workers: int
    ready: int
    back: datetime | None
    front: datetime | None
    waiting: int
    first: int | None = None


# What the builder does need not reach the disk before others see it: a claim of its buckets commits behind it in the
# same log, and what is lost in a crash before that waits as before.
_LOOK = """
WITH queue AS MATERIALIZED (
    SELECT rank_at, block, before, cardinality(offsets) AS items FROM waiting_front($1, $5, $6, $4))
SELECT pg_try_advisory_xact_lock(hashtext('coordinator.builder'), $1) AS locked,
       set_config('synchronous_commit', 'off', true),
       w.workers,
       (SELECT count(*) FROM (SELECT FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL
                               LIMIT least($3, w.workers * $2)) b) AS ready,
       (SELECT rank_at FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL
         ORDER BY rank_at DESC LIMIT 1) AS back,
       (SELECT rank_at FROM queue WHERE before = 0) AS front,
       (SELECT block FROM queue WHERE before = 0) AS first,
       (SELECT least(coalesce(sum(items), 0), $4) FROM queue)::int AS waiting
  FROM (SELECT count(*) AS workers
          FROM (SELECT FROM membership WHERE service_id = $1 AND joined AND inactive IS NULL LIMIT $3) m) w"""


async def look(
    db: Connection, service: ServiceId, for_each: int, waiting_limit: int, start: QueuePlace = QUEUE_START
) -> ReadyPool | None:
    """Take the builder's lock if nobody has it, and look how full the ready pool is; None if somebody has it.

    It counts no further than `for_each` ready buckets a client, MAX_READY of both, and `waiting_limit`: the cost does
    not grow with the queue.  Nothing that waits is looked for before `start`.  Buckets that another builder commits at
    that moment may be missing.
    """
    row = await db.fetchrow(_LOOK, service, for_each, MAX_READY, waiting_limit, *start)
    if not row["locked"]:
        return None
    return ReadyPool(row["workers"], row["ready"], row["back"], row["front"], row["waiting"], row["first"])


_DUE_FOR_SPLIT = """
SELECT b.bucket_id, b.service_id, b.rank_at, b.since, b.priority, b.attempts, b.settled::text AS settled,
       c.items, o.frame,
       (SELECT count(DISTINCT k.client_id) FROM claim k
          JOIN membership m ON m.client_id = k.client_id AND m.service_id = k.service_id
         WHERE k.bucket_id = b.bucket_id AND k.spent AND m.settled > m.taken_back) AS clients
  FROM bucket b JOIN bucket_items c USING (bucket_id) JOIN open_bucket o USING (bucket_id)
 WHERE b.split_at <= now() AND b.service_id = $1 ORDER BY b.split_at LIMIT $2 FOR UPDATE OF b SKIP LOCKED"""

_CLOSE = """
UPDATE bucket SET state = 'done', split_at = NULL, settled = ~(settled & ~settled) WHERE bucket_id = ANY ($1::uuid[])"""

_OFFER_AGAIN = "UPDATE bucket SET split_at = NULL WHERE bucket_id = $1"

_NOTE_ORIGIN = "UPDATE bucket SET split_from = $1 WHERE bucket_id = ANY ($2::uuid[])"

_MOVE_TWINS = """
UPDATE twin t SET first_id = CASE WHEN t.first_id = $1 THEN $2 ELSE t.first_id END,
                  second_id = CASE WHEN t.second_id = $1 THEN $2 ELSE t.second_id END
 WHERE $1 IN (t.first_id, t.second_id) AND t.item_id = ANY ($3::bigint[])"""


@dataclass(frozen=True, slots=True)
class BucketToSplit:
    """A bucket that failed so often that it is cut up.

    `items` are those not settled yet, `frame` is of `all_items`; `clients` counts the clients at which it failed.
    """

    bucket_id: BucketId
    service_id: ServiceId
    rank_at: datetime
    since: datetime
    priority: int
    attempts: int
    items: tuple[ItemId, ...]
    all_items: tuple[ItemId, ...]
    frame: str
    clients: int


async def due_for_split(db: Connection, service: ServiceId, limit: int) -> list[BucketToSplit]:
    """Lock buckets whose time to be cut up has come; within a transaction that holds the builder's lock."""
    rows = await db.fetch(_DUE_FOR_SPLIT, service, limit)

    return [
        BucketToSplit(
            BucketId(row["bucket_id"]),
            ServiceId(row["service_id"]),
            row["rank_at"],
            row["since"],
            row["priority"],
            row["attempts"],
            tuple(item for item, bit in zip(row["items"], row["settled"], strict=True) if bit == "0"),
            tuple(row["items"]),
            row["frame"],
            row["clients"],
        )
        for row in rows
    ]


async def close(db: Connection, buckets: Sequence[BucketId]) -> None:
    """End ready buckets whose items have gone elsewhere."""
    await db.execute(_CLOSE, list(buckets))


async def offer_again(db: Connection, bucket: BucketId) -> None:
    """Let a bucket that was set aside be handed out as it is."""
    await db.execute(_OFFER_AGAIN, bucket)


async def note_origin(db: Connection, broken: BucketId, parts: Sequence[BucketId]) -> None:
    """Note of which bucket these are the parts, so that what was before in the life of their items is found."""
    await db.execute(_NOTE_ORIGIN, broken, list(parts))


_RETIRE = """
WITH done AS (
    UPDATE bucket SET indexed = false
     WHERE bucket_id IN (SELECT bucket_id FROM bucket WHERE state = 'done' AND indexed LIMIT $1
                            FOR UPDATE SKIP LOCKED)
    RETURNING bucket_id),
forgiven AS (
    DELETE FROM return_block g USING done d WHERE g.bucket_id = d.bucket_id),
apart AS (
    DELETE FROM twin t USING done d, bucket o
     WHERE d.bucket_id IN (t.first_id, t.second_id)
       AND o.bucket_id = CASE WHEN d.bucket_id = t.first_id THEN t.second_id ELSE t.first_id END
       AND o.state = 'done')
DELETE FROM open_bucket WHERE bucket_id = ANY (ARRAY (SELECT bucket_id FROM done))"""


async def retire(db: Connection, limit: int = 1000) -> int:
    """Forget what is needed of open buckets only, for some of those that are done.

    It runs off the hot path, since nothing waits for it.  Returns the number of buckets.
    """
    return int((await db.execute(_RETIRE, limit)).split()[-1])


_HAS_TWINS = "UPDATE bucket SET twins = true WHERE bucket_id = $1"


async def move_twins(db: Connection, old: BucketId, new: BucketId, items: Sequence[ItemId]) -> None:
    """Note that items that stand in a second bucket too have moved from the bucket `old` to `new`."""
    if int((await db.execute(_MOVE_TWINS, old, new, list(items))).split()[-1]):
        await db.execute(_HAS_TWINS, new)
