"""Claiming and releasing buckets, and the marks that the clock sets on them.

Every statement here moves whole buckets and is one statement, so that all or nothing happens however many nodes
run it at once.  The states of a bucket, and what changes them, stand in `flow/life.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.model import (
    Boot,
    BucketId,
    Claimed,
    ClaimNumber,
    ClientId,
    Demand,
    Ended,
    Freed,
    ServiceId,
    ServiceSettings,
    SessionId,
)
from coordinator.store.claim_rules import budget_rule, hold_rule
from coordinator.store.fronts import POOL_START, PoolPlace
from coordinator.store.pool import Connection

FRONT_BUCKETS = 128
"""Buckets at the front of the pool, beside those that are asked for, of which each may be the next of its rank."""

# The next bucket is drawn at each claim among the front of the pool: a run of the builder is 100 buckets of the usual
# size.  The order of `shuffle` alone would not do: a client that takes the first bucket and returns it leaves those
# behind that rank later, so that the returned one would nearly always come next.  The random bytes ($6) come from here,
# since gen_random_uuid() asks the operating system for each row.  The front is an array of places, and the second look
# at the state is one that no index serves: a plan that joins it with the pool itself costs more with every ready bucket
# (70 ms with 200,000).  Places are put in order before their buckets are read, so that no more of these are than $5.
# Clients are served in the order of $2; one whose bucket would be one that it gave back is left to _CLAIM_UNBLOCKED,
# one that has to wait is not served at all, nor beyond what it may hold.
#
# $1 service
# $2 clients, one for each bucket that is asked for; $3 their sessions, $7 their addresses
# $4 boot
# $5 how many are asked for
# $6 random bytes
# $8 items of a bucket
# $9 buckets that a newcomer may hold
# $10 buckets that anyone may hold
# $11 rank, and $12 shuffle number, before which nothing is ready
# $13 items that may be handed out in a minute, $14 buckets that all clients may hold; null: any number
_CLAIM = """
WITH asked AS MATERIALIZED (
    SELECT client_id, session_id, strangers_block(address) AS block, n,
           row_number() OVER (PARTITION BY client_id ORDER BY n) AS nth
      FROM unnest($2::text[], $3::uuid[], $7::text[]) WITH ORDINALITY AS a (client_id, session_id, address, n)),
able AS MATERIALIZED (
    SELECT client_id, standing <= 0 AS newcomer,
           may_hold(health, streak, standing, $8, $9, $10) - count_held(client_id, $1) AS room
      FROM (SELECT client_id, health, streak, standing FROM servable_membership m
             WHERE client_id = ANY ($2::text[]) AND service_id = $1 OFFSET 0) m),
within AS (
    SELECT a.client_id, a.session_id, a.n, a.block, w.newcomer,
           row_number() OVER (PARTITION BY w.newcomer, a.block ORDER BY a.n) AS nth_of_block
      FROM asked a JOIN able w USING (client_id) WHERE a.nth <= w.room),
rooms AS MATERIALIZED (
    SELECT block, newcomers_room(block, $1) AS room
      FROM (SELECT DISTINCT block FROM within WHERE newcomer AND block IS NOT NULL) b),
demand AS (
    SELECT client_id, session_id, n FROM within w LEFT JOIN rooms r ON w.newcomer AND r.block = w.block
     WHERE r.room IS NULL OR w.nth_of_block <= r.room),
front AS MATERIALIZED (
    SELECT coalesce(array_agg(ctid), '{}') AS places, coalesce(array_agg(rank_at), '{}') AS ranks
      FROM (SELECT ctid, rank_at FROM bucket
             WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL AND (rank_at, shuffle) >= ($11, $12)
             ORDER BY rank_at, shuffle LIMIT $5 + 128) f),
first AS MATERIALIZED (
    SELECT ranks[1] AS rank_at, (SELECT shuffle FROM bucket WHERE ctid = places[1]) AS shuffle FROM front),
picked AS MATERIALIZED (
    SELECT b.bucket_id, items_left(b.settled) AS items
      FROM (SELECT place, rank_at, substr($6::bytea, n::int * 8 - 7, 8) AS chance
              FROM front CROSS JOIN LATERAL unnest(places, ranks) WITH ORDINALITY AS p (place, rank_at, n)
             ORDER BY rank_at, chance) drawn
      JOIN bucket b ON b.ctid = drawn.place
     WHERE b.state || '' = 'ready' AND b.split_at IS NULL
     ORDER BY drawn.rank_at, drawn.chance LIMIT $5 FOR UPDATE OF b SKIP LOCKED),
budget AS MATERIALIZED (
    SELECT items, buckets FROM budget_left($1, $13, $14)),
served AS MATERIALIZED (
    SELECT array_agg(client_id ORDER BY n) AS clients, array_agg(session_id ORDER BY n) AS sessions FROM demand),
paired AS (
    SELECT p.bucket_id, s.clients[p.slot] AS client_id, s.sessions[p.slot] AS session_id
      FROM (SELECT bucket_id, row_number() OVER () AS slot,
                   sum(items) OVER (ROWS UNBOUNDED PRECEDING) - items AS items_before FROM picked) p
     CROSS JOIN served s CROSS JOIN budget g
     WHERE p.slot <= least(cardinality(s.clients), g.buckets)
       AND (g.items IS NULL OR p.items_before < g.items)
       AND NOT EXISTS (SELECT FROM return_block g
                        WHERE g.client_id = s.clients[p.slot] AND g.bucket_id = p.bucket_id AND g.until > now())),
taken AS (
    UPDATE bucket b
       SET state = 'claimed', claim_id = nextval('claim_number'), client_id = p.client_id,
           session_id = p.session_id, boot = $4, touched_at = now()
      FROM paired p WHERE b.bucket_id = p.bucket_id
    RETURNING b.bucket_id, b.claim_id, b.client_id, b.session_id, b.attempts, b.settled),
noted AS (
    INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given)
    SELECT claim_id, bucket_id, $1, client_id, session_id, $4, ~settled FROM taken)
SELECT $1::int AS service_id, t.bucket_id, t.claim_id, t.client_id, t.session_id, t.attempts,
       t.settled::text AS settled, c.items, o.frame, cardinality(front.places) AS ready,
       first.rank_at AS first_rank, first.shuffle AS first_shuffle
  FROM front CROSS JOIN first
  LEFT JOIN (taken t JOIN bucket_items c USING (bucket_id) JOIN open_bucket o USING (bucket_id)) ON true"""

# $2 client, $3 session, $5 random bytes, $6 address, $7 to $9 what it may hold, $10 and $11 what all clients may; the
# others as above.
_CLAIM_UNBLOCKED = """
WITH picked AS MATERIALIZED (
    SELECT b.bucket_id
      FROM (SELECT c.bucket_id, row_number() OVER (ORDER BY c.rank_at, c.shuffle)::int AS n FROM bucket c
             WHERE c.service_id = $1 AND c.state = 'ready' AND c.split_at IS NULL
               AND NOT EXISTS (SELECT FROM return_block g
                                WHERE g.client_id = $2 AND g.bucket_id = c.bucket_id AND g.until > now())
             ORDER BY c.rank_at, c.shuffle LIMIT 128) w
      JOIN bucket b USING (bucket_id)
     WHERE b.state = 'ready' AND b.split_at IS NULL
       AND (SELECT may_hold(health, streak, standing, $7, $8, $9) > count_held($2, $1)
                   AND (standing > 0 OR strangers_block($6) IS NULL OR newcomers_room($6, $1) > 0)
              FROM servable_membership WHERE client_id = $2 AND service_id = $1)
       AND (SELECT coalesce(items, 1) > 0 AND coalesce(buckets, 1) > 0 FROM budget_left($1, $10, $11))
     ORDER BY b.rank_at, substr($5::bytea, w.n * 8 - 7, 8) LIMIT 1 FOR UPDATE OF b SKIP LOCKED),
taken AS (
    UPDATE bucket b
       SET state = 'claimed', claim_id = nextval('claim_number'), client_id = $2, session_id = $3, boot = $4,
           touched_at = now()
      FROM picked p WHERE b.bucket_id = p.bucket_id
    RETURNING b.bucket_id, b.claim_id, b.client_id, b.session_id, b.attempts, b.settled),
noted AS (
    INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given)
    SELECT claim_id, bucket_id, $1, client_id, session_id, $4, ~settled FROM taken)
SELECT $1::int AS service_id, t.bucket_id, t.claim_id, t.client_id, t.session_id, t.attempts,
       t.settled::text AS settled, c.items, o.frame
  FROM taken t JOIN bucket_items c USING (bucket_id) JOIN open_bucket o USING (bucket_id)"""


@dataclass(frozen=True, slots=True)
class ClaimedBuckets:
    """The buckets that one claim statement handed out.

    `left` remain, counted up to `FRONT_BUCKETS`; `seen` were ready, the first of them (if any) at the place `first`.
    """

    claimed: list[Claimed]
    left: int
    seen: int
    first: PoolPlace | None


async def claim(
    db: Connection,
    service: ServiceId,
    demands: Sequence[Demand],
    boot: Boot,
    settings: ServiceSettings,
    start: PoolPlace = POOL_START,
) -> ClaimedBuckets:
    """Hand out the front of the ready pool, from `start` on, one bucket for each demand, in the order of the demands.

    A client whose bucket would be one that it gave back lately is not served here (`claim_unblocked`), those that have
    to wait not at all, and none beyond what it may hold, nor beyond the service's budget (`waits.find_waits` tells
    which).
    """
    rows = await db.fetch(
        _CLAIM,
        service,
        [demand.client_id for demand in demands],
        [demand.session_id for demand in demands],
        boot,
        len(demands),
        secrets.token_bytes(8 * (len(demands) + FRONT_BUCKETS)),
        [demand.address for demand in demands],
        *hold_rule(settings),
        *start,
        *budget_rule(settings),
    )

    first = rows[0]
    place = None if first["first_rank"] is None else (first["first_rank"], first["first_shuffle"])
    claimed = [read_claimed(row) for row in rows if row["bucket_id"] is not None]
    return ClaimedBuckets(claimed, min(first["ready"] - len(claimed), FRONT_BUCKETS), first["ready"], place)


async def claim_unblocked(
    db: Connection, service: ServiceId, demand: Demand, boot: Boot, settings: ServiceSettings
) -> Claimed | None:
    """Hand out one bucket, as `claim` does, to a client that must not get those that it lately gave back."""
    chance, rule = secrets.token_bytes(8 * FRONT_BUCKETS), (*hold_rule(settings), *budget_rule(settings))
    row = await db.fetchrow(
        _CLAIM_UNBLOCKED, service, demand.client_id, demand.session_id, boot, chance, demand.address, *rule
    )
    return None if row is None else read_claimed(row)


def read_claimed(row: Any) -> Claimed:
    """Read a row of a claim statement."""
    return Claimed(
        ServiceId(row["service_id"]),
        BucketId(row["bucket_id"]),
        ClaimNumber(row["claim_id"]),
        ClientId(row["client_id"]),
        SessionId(row["session_id"]),
        row["attempts"],
        tuple(row["items"]),
        row["settled"],
        row["frame"],
    )


# Each release locks its buckets, in one order, and frees them by `free_buckets` (see the schema).  Of all of them:
#
# $1 how the claims end
# $2 whether it counts as a failed attempt: 1 or 0
# $3 the counter of the client that pays, or ''
# $4 the recollect window in seconds
#
# Of this one:
#
# $5 client
# $6 session
# $7 the buckets that reached the client
#
# What a session held need not reach the disk before others see that it is free: a claim of it commits behind it in the
# same log.
_RELEASE_SESSION = """
SELECT freed.*, set_config('synchronous_commit', 'off', true)
  FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket WHERE client_id = $5 AND session_id = $6
                            ORDER BY bucket_id FOR UPDATE), $1, $2, $3, $4, $7) AS freed"""

_RELEASE_CLIENT = """
SELECT * FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket
                                   WHERE client_id = $5 AND ($6::int IS NULL OR service_id = $6)
                                   ORDER BY bucket_id FOR UPDATE), $1, $2, $3, $4)"""

_RELEASE_CLAIM = """
SELECT * FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket
                                   WHERE bucket_id = $5 AND claim_id = $6 AND client_id IS NOT NULL FOR UPDATE),
                           $1, $2, $3, $4)"""

_RELEASE_SERVICE = """
SELECT * FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket
                                   WHERE service_id = $5 AND state IN ('claimed', 'dead')
                                   ORDER BY bucket_id FOR UPDATE), $1, $2, $3, $4)"""

_RELEASE_CRASHED = """
SELECT * FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket b
                                   WHERE state IN ('claimed', 'dead') AND kept_until IS NULL
                                     AND NOT EXISTS (SELECT FROM node n WHERE n.boot = b.boot AND n.state <> 'gone')
                                   ORDER BY bucket_id LIMIT $5 FOR UPDATE SKIP LOCKED), $1, $2, $3, $4)"""

_RELEASE_KEPT = """
SELECT * FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket WHERE kept_until <= now()
                                   ORDER BY kept_until LIMIT $5 FOR UPDATE SKIP LOCKED), $1, $2, $3, $4)"""


@dataclass(frozen=True, slots=True)
class EndReason:
    """One way in which a claim ends without being settled.

    `ended` stands in the claim's row; `attempts` is 1 where it counts as a failed attempt; `cost` names the counter of
    the client that pays, '' where nobody does.
    """

    ended: Ended
    attempts: int = 0
    cost: str = ""


CUT_OFF = EndReason("cut_off", 1, "disconnects")
RELEASED = EndReason("released", 0, "given_back")
GIVEN_UP = EndReason("partial", 1, "given_back")
DEAD = EndReason("dead", 1, "dead")
UNDELIVERED = EndReason("undelivered")
DRAINED = EndReason("drained")
CRASHED = EndReason("crashed")
REVOKED = EndReason("revoked")
DEACTIVATED = EndReason("deactivated")
LEFT = EndReason("left", 0, "given_back")
UNREGISTERED = EndReason("unregistered", 0, "given_back")
TAKEN = EndReason("taken")
EXPIRED = EndReason("expired", 1, "dead")


async def release_session(
    db: Connection,
    client: ClientId,
    session: SessionId,
    way: EndReason,
    recollect_window: float,
    delivered: Sequence[BucketId],
) -> list[Freed]:
    """Free all buckets that one session holds; safe to repeat.  `recollect_window` in seconds.

    A bucket that is not among the `delivered` costs nothing.  Others see it at once; it reaches the disk with the next
    transaction that waits for that.
    """
    return await free(db, _RELEASE_SESSION, way, recollect_window, client, session, list(delivered))


async def release_client(
    db: Connection, client: ClientId, service: ServiceId | None, way: EndReason, recollect_window: float
) -> list[Freed]:
    """Free all buckets that one client holds, in one service or in all, on any node."""
    return await free(db, _RELEASE_CLIENT, way, recollect_window, client, service)


async def release_claim(
    db: Connection, bucket: BucketId, claim: ClaimNumber, way: EndReason, recollect_window: float
) -> list[Freed]:
    """Free one bucket, if that claim is still the current one."""
    return await free(db, _RELEASE_CLAIM, way, recollect_window, bucket, claim)


async def release_service(db: Connection, service: ServiceId, way: EndReason) -> list[Freed]:
    """Free all buckets that are held in one service."""
    return await free(db, _RELEASE_SERVICE, way, 0.0, service)


async def release_crashed(db: Connection, limit: int = 1000) -> list[Freed]:
    """Free the buckets of nodes that are gone, but for those that are kept for a drained node's clients.

    It looks through all buckets, not at a list of nodes: what was missed (a crash between two steps, a claim that
    committed late) is found the next time.
    """
    return await free(db, _RELEASE_CRASHED, CRASHED, 0.0, limit)


async def release_kept(db: Connection, limit: int = 500) -> list[Freed]:
    """Free the buckets that were kept for clients that did not come back in time."""
    return await free(db, _RELEASE_KEPT, DRAINED, 0.0, limit)


async def free(db: Connection, statement: str, way: EndReason, recollect_window: float, *which: object) -> list[Freed]:
    """Free the buckets that a statement chooses by `which`; the claims end in that way."""
    rows = await db.fetch(statement, way.ended, way.attempts, way.cost, recollect_window, *which)
    return [freed_of(row) for row in rows]


def freed_of(row: Any) -> Freed:
    """Read a row of a bucket that was taken from its holder."""
    return Freed(
        ServiceId(row["service_id"]),
        BucketId(row["bucket_id"]),
        ClaimNumber(row["claim_id"]),
        ClientId(row["client_id"]),
        None if row["session_id"] is None else SessionId(row["session_id"]),
        row["remaining"],
    )
