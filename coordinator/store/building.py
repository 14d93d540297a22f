"""Making buckets of waiting items.

Whoever moves items between `waiting` and buckets holds the builder's lock of that service, so that deleting and
prioritising never miss an item that is on its way.
"""

from __future__ import annotations

import secrets
from array import array
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


# Shuffled by $5, a random number for each item: the operating system gives them all at once, but gen_random_uuid()
# would ask it for each item, which costs more than all the rest.
#
# Items of different priority do not share a bucket, so that an urgent one does not carry others with it; all buckets of
# a run and priority have the same rank.  What would fill no whole bucket stays behind, the youngest of it, unless short
# ones are wanted or it would wait behind a bucket that ranks after it.
#
# What came so late that an item of this run must not wait behind it ($8 seconds after its rank, the cap of all head
# starts) is left for the next run, for all buckets of a run rank as the first of them.
#
# No plan can choose to read a whole table: what is taken is deleted by its place in the table (rows of `waiting` are
# never updated, so they stay where they are), and the items are looked up by an array of them.  Nor can it compare each
# with each, however few it expects: a FULL join is hashed or merged, NOT IN is hashed, and `next` is one row.
#
# With $9, nothing is made unless so few wait that they fill no bucket, none is ready, and nobody has the lock: the few
# items that have just come are found, locked and made into buckets by one statement.  The holder of the lock until just
# now may have taken items that this still sees: they are gone from `waiting`, so the DELETE passes over them.
#
# $1 service
# $2 items to take at most
# $3 items of a bucket
# $4 whether short buckets are wanted
# $5 a random number for each item
# $6 rank behind which the queue begins
# $7 item of that rank behind which it begins
# $8 seconds after the first rank within which items come together
# $9 whether only few are to be made into buckets
_MAKE = """
WITH bound AS MATERIALIZED (
    SELECT rank_at + make_interval(secs => $8) AS latest
      FROM waiting WHERE service_id = $1 AND (rank_at, item_id) >= ($6, $7) ORDER BY rank_at, item_id LIMIT 1),
front AS MATERIALIZED (
    SELECT ctid AS place, item_id, rank_at, priority, since > (SELECT latest FROM bound) AS late
      FROM waiting
     WHERE service_id = $1 AND (rank_at, item_id) >= ($6, $7)
       AND (NOT $9
            OR (SELECT count(*) FROM (SELECT FROM waiting WHERE service_id = $1 AND (rank_at, item_id) >= ($6, $7)
                                       LIMIT $3) few) < $3
               AND NOT EXISTS (SELECT FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL)
               AND (SELECT pg_try_advisory_xact_lock(hashtext('coordinator.builder'), $1))
               AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off')
     ORDER BY rank_at, item_id LIMIT $2),
first_late AS MATERIALIZED (
    SELECT rank_at, item_id FROM front WHERE late ORDER BY rank_at, item_id LIMIT 1),
counted AS (
    SELECT priority, count(*) AS n, min(rank_at) AS rank_at FROM front WHERE NOT late GROUP BY priority),
run AS MATERIALIZED (
    SELECT priority, rank_at,
           CASE WHEN $4 OR EXISTS (SELECT FROM first_late)
                     OR EXISTS (SELECT FROM counted o WHERE o.rank_at > c.rank_at AND o.n >= $3) THEN 0
                ELSE n % $3 END AS behind
      FROM counted c),
behind AS MATERIALIZED (
    SELECT youngest.*
      FROM run r
      CROSS JOIN LATERAL (
           SELECT f.place, f.rank_at, f.item_id FROM front f WHERE f.priority = r.priority AND NOT late
            ORDER BY f.rank_at DESC, f.item_id DESC LIMIT r.behind) youngest
     WHERE r.behind > 0),
gone AS (
    DELETE FROM waiting
     WHERE ctid = ANY (ARRAY (SELECT place FROM front WHERE NOT late AND place NOT IN (SELECT place FROM behind)))
    RETURNING item_id, since, priority),
known AS MATERIALIZED (
    SELECT item_id, item_json(item_id, key, attributes) AS fragment
      FROM item WHERE item_id = ANY (ARRAY (SELECT item_id FROM gone))),
shuffled AS (
    SELECT item_id, g.since, g.priority, known.fragment,
           (row_number() OVER (PARTITION BY g.priority ORDER BY ($5::bigint[])[g.n]) - 1) / $3 AS part
      FROM (SELECT item_id, since, priority, row_number() OVER ()::int AS n FROM gone) g
      FULL JOIN known USING (item_id)),
parts AS MATERIALIZED (
    SELECT gen_random_uuid() AS bucket_id, priority, min(since) AS since, array_agg(item_id) AS items,
           '[' || string_agg(fragment, ',') || ']' AS frame
      FROM shuffled WHERE fragment IS NOT NULL GROUP BY priority, part),
stored AS (
    INSERT INTO bucket_items (bucket_id, items, frame) SELECT bucket_id, items, frame FROM parts),
put AS (
    INSERT INTO bucket (bucket_id, service_id, rank_at, since, priority, settled)
    SELECT p.bucket_id, $1, r.rank_at, p.since, p.priority, repeat('0', cardinality(p.items))::varbit
      FROM parts p JOIN run r USING (priority)
    RETURNING bucket_id),
first_behind AS (
    SELECT rank_at, item_id FROM behind ORDER BY rank_at, item_id LIMIT 1),
last_taken AS (
    SELECT rank_at, item_id FROM front WHERE NOT late ORDER BY rank_at DESC, item_id DESC LIMIT 1),
next AS MATERIALIZED (
    SELECT * FROM (SELECT * FROM first_behind UNION ALL SELECT * FROM first_late UNION ALL SELECT * FROM last_taken)
        AS either
     ORDER BY rank_at, item_id LIMIT 1)
SELECT next.rank_at, next.item_id FROM put CROSS JOIN next"""

QueuePlace = tuple[datetime, int]
"""Where in a queue: rank and item."""

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
    chance = array("q", secrets.token_bytes(8 * limit))

    made = await db.fetch(_MAKE, service, limit, size, short, chance.tolist(), *start, span, False)
    return len(made), (made[0]["rank_at"], made[0]["item_id"]) if made else start


async def make_few(db: Connection, service: ServiceId, size: int, span: float = DEFAULT_SPAN) -> int:
    """Make short buckets of all that waits if it fills no bucket of `size` and no bucket is ready; returns how many.

    It runs within a transaction of its own, which others see before it has reached the disk, as with `look`.
    """
    chance = array("q", secrets.token_bytes(8 * size))
    return len(await db.fetch(_MAKE, service, size, size, True, chance.tolist(), *QUEUE_START, span, True))


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
    INSERT INTO bucket_items (bucket_id, items, frame) SELECT bucket_id, items, frame FROM made JOIN listed USING (n))
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
    bucket, `front` the rank of the first waiting item, `first` that item; `waiting` counts waiting items up to the
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
    SELECT rank_at, item_id FROM waiting WHERE service_id = $1 AND (rank_at, item_id) >= ($5, $6)
     ORDER BY rank_at, item_id LIMIT $4)
SELECT pg_try_advisory_xact_lock(hashtext('coordinator.builder'), $1) AS locked,
       set_config('synchronous_commit', 'off', true),
       w.workers,
       (SELECT count(*) FROM (SELECT FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL
                               LIMIT least($3, w.workers * $2)) b) AS ready,
       (SELECT rank_at FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL
         ORDER BY rank_at DESC LIMIT 1) AS back,
       (SELECT rank_at FROM queue LIMIT 1) AS front,
       (SELECT item_id FROM queue LIMIT 1) AS first,
       (SELECT count(*) FROM queue) AS waiting
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
       c.items, c.frame,
       (SELECT count(DISTINCT k.client_id) FROM claim k
         WHERE k.bucket_id = b.bucket_id AND k.ended IN ('cut_off', 'dead', 'partial')) AS clients
  FROM bucket b JOIN bucket_items c USING (bucket_id)
 WHERE b.split_at <= now() AND b.service_id = $1 ORDER BY b.split_at LIMIT $2 FOR UPDATE OF b SKIP LOCKED"""

_CLOSE = """
UPDATE bucket SET state = 'done', split_at = NULL, settled = ~(settled & ~settled) WHERE bucket_id = ANY ($1::uuid[])"""

_OFFER_AGAIN = "UPDATE bucket SET split_at = NULL WHERE bucket_id = $1"

_QUARANTINE = """
INSERT INTO quarantine (service_id, item_id, attempts) VALUES ($1, $2, $3)
ON CONFLICT (service_id, item_id) DO UPDATE SET attempts = quarantine.attempts + excluded.attempts, since = now()"""

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


async def quarantine(db: Connection, service: ServiceId, item: ItemId, attempts: int) -> None:
    """Take an item out of circulation until an admin decides."""
    await db.execute(_QUARANTINE, service, item, attempts)


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
UPDATE bucket_items c SET open = false FROM done d WHERE c.bucket_id = d.bucket_id"""


async def retire(db: Connection, limit: int = 1000) -> int:
    """Take done buckets out of the index of open ones, and forget what only concerned open ones.

    It runs off the hot path, since nothing waits for it.  Returns the number of buckets.
    """
    return int((await db.execute(_RETIRE, limit)).split()[-1])


_HAS_TWINS = "UPDATE bucket SET twins = true WHERE bucket_id = $1"


async def move_twins(db: Connection, old: BucketId, new: BucketId, items: Sequence[ItemId]) -> None:
    """Note that items that stand in a second bucket too have moved from the bucket `old` to `new`."""
    if int((await db.execute(_MOVE_TWINS, old, new, list(items))).split()[-1]):
        await db.execute(_HAS_TWINS, new)
