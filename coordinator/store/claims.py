"""Claiming and releasing buckets, and the marks that the clock sets on them.

Every statement here moves whole buckets and is one statement, so that all or nothing happens however many nodes
run it at once.  The states of a bucket, and what changes them, stand in `flow/life.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from coordinator.model import (
    Boot,
    BucketId,
    Claimed,
    ClaimNumber,
    ClientId,
    Demand,
    Ended,
    Freed,
    ItemId,
    ServiceId,
    SessionId,
)
from coordinator.store.pool import Connection

FRONT_BUCKETS = 128
"""Buckets at the front of the pool, beside those that are asked for, of which each may be the next of its rank."""

# The next bucket is drawn at each claim among the front of the pool: a run of the builder is 100 buckets of the usual
# size.  The order of `shuffle` alone would not do: a client that takes the first bucket and returns it leaves those
# behind that rank later, so that the returned one would nearly always come next.  The random bytes ($6) come from here,
# since gen_random_uuid() asks the operating system for each row.  The front is an array of places, and the second look
# at the state is one that no index serves: a plan that joins it with the pool itself costs more with every ready bucket
# (70 ms with 200,000).  Clients are served in the order of $2; one that has given back some bucket is left to
# _CLAIM_UNBLOCKED, one that has to wait is not served at all.
_CLAIM = """
WITH demand AS (
    SELECT d.client_id, d.session_id, d.n
      FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS d (client_id, session_id, n)
      JOIN servable_membership m ON m.client_id = d.client_id AND m.service_id = $1
     WHERE NOT EXISTS (SELECT FROM return_block g WHERE g.client_id = d.client_id AND g.until > now())),
front AS MATERIALIZED (
    SELECT ARRAY (SELECT ctid FROM bucket
                   WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL
                   ORDER BY rank_at, shuffle LIMIT $5 + 128) AS places),
picked AS MATERIALIZED (
    SELECT b.bucket_id
      FROM front CROSS JOIN LATERAL unnest(places) WITH ORDINALITY AS w (place, n)
      JOIN bucket b ON b.ctid = w.place
     WHERE b.state || '' = 'ready' AND b.split_at IS NULL
     ORDER BY b.rank_at, substr($6::bytea, w.n::int * 8 - 7, 8) LIMIT $5 FOR UPDATE OF b SKIP LOCKED),
served AS MATERIALIZED (
    SELECT array_agg(client_id ORDER BY n) AS clients, array_agg(session_id ORDER BY n) AS sessions FROM demand),
paired AS (
    SELECT p.bucket_id, s.clients[p.slot] AS client_id, s.sessions[p.slot] AS session_id
      FROM (SELECT bucket_id, row_number() OVER () AS slot FROM picked) p CROSS JOIN served s
     WHERE p.slot <= cardinality(s.clients)),
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
       t.settled::text AS settled, c.items, c.frame, cardinality(front.places) AS ready
  FROM front CROSS JOIN taken t JOIN bucket_items c USING (bucket_id)"""

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
       AND EXISTS (SELECT FROM servable_membership WHERE client_id = $2 AND service_id = $1)
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
       t.settled::text AS settled, c.items, c.frame
  FROM taken t JOIN bucket_items c USING (bucket_id)"""

_FIND_WAITS = """
SELECT m.client_id, extract(epoch FROM greatest(m.wait_until, m.report_until) - now())::float8 AS seconds,
       EXISTS (SELECT FROM return_block g WHERE g.client_id = m.client_id AND g.until > now()) AS has_blocks
  FROM membership m WHERE m.service_id = $1 AND m.client_id = ANY ($2::text[])"""


@dataclass(frozen=True, slots=True)
class ClaimedBuckets:
    """The buckets that one claim statement handed out; `left` ready ones remain, counted up to `FRONT_BUCKETS`."""

    claimed: list[Claimed]
    left: int


async def claim(db: Connection, service: ServiceId, demands: Sequence[Demand], boot: Boot) -> ClaimedBuckets:
    """Hand out the front of the ready pool, one bucket for each demand, in the order of the demands.

    Clients that gave something back lately are not served here (`claim_unblocked`), those that have to wait not at all
    (`find_waits` tells which).
    """
    rows = await db.fetch(
        _CLAIM,
        service,
        [demand.client_id for demand in demands],
        [demand.session_id for demand in demands],
        boot,
        len(demands),
        secrets.token_bytes(8 * (len(demands) + FRONT_BUCKETS)),
    )

    return ClaimedBuckets(
        [read_claimed(row) for row in rows], min(rows[0]["ready"] - len(rows), FRONT_BUCKETS) if rows else 0
    )


async def claim_unblocked(db: Connection, service: ServiceId, demand: Demand, boot: Boot) -> Claimed | None:
    """Hand out one bucket, as `claim` does, to a client that must not get those that it lately gave back."""
    chance = secrets.token_bytes(8 * FRONT_BUCKETS)
    row = await db.fetchrow(_CLAIM_UNBLOCKED, service, demand.client_id, demand.session_id, boot, chance)
    return None if row is None else read_claimed(row)


@dataclass(frozen=True, slots=True)
class ClientWait:
    """The reasons why a client was not served.

    It has to wait for `seconds` (None: it need not), or some buckets are not offered to it (`has_blocks`), as it gave
    them back lately.
    """

    client_id: ClientId
    seconds: float | None
    has_blocks: bool


async def find_waits(db: Connection, service: ServiceId, clients: Sequence[ClientId]) -> list[ClientWait]:
    """Find the reasons why these clients were not served."""
    return [
        ClientWait(ClientId(row["client_id"]), row["seconds"] if (row["seconds"] or 0) > 0 else None, row["has_blocks"])
        for row in await db.fetch(_FIND_WAITS, service, list(clients))
    ]


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

_RELEASE_DEAD = """
SELECT * FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket
                                   WHERE service_id = $5 AND state = 'dead'
                                     AND touched_at <= now() - make_interval(secs => $6)
                                   ORDER BY touched_at LIMIT 500 FOR UPDATE SKIP LOCKED), $1, $2, $3, $4)"""


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
LEFT = EndReason("left")
UNREGISTERED = EndReason("unregistered")
TAKEN = EndReason("taken")


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
    return await _free(db, _RELEASE_SESSION, way, recollect_window, client, session, list(delivered))


async def release_client(
    db: Connection, client: ClientId, service: ServiceId | None, way: EndReason, recollect_window: float
) -> list[Freed]:
    """Free all buckets that one client holds, in one service or in all, on any node."""
    return await _free(db, _RELEASE_CLIENT, way, recollect_window, client, service)


async def release_claim(
    db: Connection, bucket: BucketId, claim: ClaimNumber, way: EndReason, recollect_window: float
) -> list[Freed]:
    """Free one bucket, if that claim is still the current one."""
    return await _free(db, _RELEASE_CLAIM, way, recollect_window, bucket, claim)


async def release_service(db: Connection, service: ServiceId, way: EndReason) -> list[Freed]:
    """Free all buckets that are held in one service."""
    return await _free(db, _RELEASE_SERVICE, way, 0.0, service)


async def release_crashed(db: Connection, limit: int = 1000) -> list[Freed]:
    """Free the buckets of nodes that are gone, but for those that are kept for a drained node's clients.

    It looks through all buckets, not at a list of nodes: what was missed (a crash between two steps, a claim that
    committed late) is found the next time.
    """
    return await _free(db, _RELEASE_CRASHED, CRASHED, 0.0, limit)


async def release_kept(db: Connection, limit: int = 500) -> list[Freed]:
    """Free the buckets that were kept for clients that did not come back in time."""
    return await _free(db, _RELEASE_KEPT, DRAINED, 0.0, limit)


async def release_dead(
    db: Connection, service: ServiceId, release_after: float, recollect_window: float
) -> list[Freed]:
    """Free the buckets that were marked dead `release_after` seconds ago."""
    return await _free(db, _RELEASE_DEAD, DEAD, recollect_window, service, release_after)


async def _free(db: Connection, statement: str, way: EndReason, recollect_window: float, *which: object) -> list[Freed]:
    rows = await db.fetch(statement, way.ended, way.attempts, way.cost, recollect_window, *which)
    return [_freed(row) for row in rows]


def _freed(row: Any) -> Freed:
    return Freed(
        ServiceId(row["service_id"]),
        BucketId(row["bucket_id"]),
        ClaimNumber(row["claim_id"]),
        ClientId(row["client_id"]),
        None if row["session_id"] is None else SessionId(row["session_id"]),
        row["remaining"],
    )


_LEAVE_TWINS = "SELECT leave_twins($1, $2)"


async def leave_twins(db: Connection, buckets: Sequence[UUID], items: Sequence[ItemId] | None = None) -> None:
    """Take items that stand in a second bucket out of these ready ones: these items, or all; within a transaction."""
    await db.execute(_LEAVE_TWINS, list(buckets), None if items is None else list(items))


_KEEP_FOR_RECONNECT = """
UPDATE bucket SET session_id = NULL, kept_until = now() + make_interval(secs => $2)
 WHERE bucket_id IN (SELECT bucket_id FROM bucket WHERE client_id IS NOT NULL AND session_id = ANY ($1::uuid[])
                      ORDER BY bucket_id FOR UPDATE)"""


async def keep_for_reconnect(db: Connection, sessions: Sequence[SessionId], reconnect_window: float) -> None:
    """Keep the buckets of these sessions for their clients, for `reconnect_window` seconds; their node drains."""
    await db.execute(_KEEP_FOR_RECONNECT, list(sessions), reconnect_window)


_MARK_DEAD = """
WITH marked AS (
    UPDATE bucket SET state = 'dead', touched_at = now()
     WHERE bucket_id = ANY (ARRAY (
        SELECT bucket_id FROM bucket
         WHERE service_id = $1 AND state = 'claimed' AND kept_until IS NULL
           AND touched_at <= now() - make_interval(secs => $2)
         ORDER BY touched_at LIMIT 500 FOR UPDATE SKIP LOCKED))
    RETURNING service_id, bucket_id, claim_id, client_id, session_id,
              items_left(settled) AS remaining),
holders AS MATERIALIZED (
    SELECT client_id, service_id FROM membership
     WHERE (client_id, service_id) IN (SELECT client_id, service_id FROM marked)
     ORDER BY client_id, service_id FOR NO KEY UPDATE),
counted AS (
    UPDATE membership m SET died = m.died + f.n, died_run = m.died_run + f.n, well = 0
      FROM (SELECT client_id, service_id, count(*) AS n FROM marked JOIN holders USING (client_id, service_id)
             GROUP BY 1, 2) f
     WHERE m.client_id = f.client_id AND m.service_id = f.service_id)
SELECT service_id, bucket_id, claim_id, client_id, session_id, remaining FROM marked"""


async def mark_dead(db: Connection, service: ServiceId, dead_after: float) -> list[Freed]:
    """Mark buckets as dead that settled nothing for `dead_after` seconds; their holders keep them for now."""
    return [_freed(row) for row in await db.fetch(_MARK_DEAD, service, dead_after)]


_HELD_COUNT = "SELECT count(*) FROM bucket WHERE client_id = $1 AND service_id = $2"


async def held_count(db: Connection, client: ClientId, service: ServiceId) -> int:
    """Count the buckets of a service that a client holds, in all its sessions on all nodes together."""
    return int(await db.fetchval(_HELD_COUNT, client, service))


_CLAIMS_OF_BOOT = """
SELECT bucket_id, claim_id, session_id FROM bucket
 WHERE boot = $1 AND state IN ('claimed', 'dead') AND kept_until IS NULL"""


async def claims_of_boot(db: Connection, boot: Boot) -> list[tuple[BucketId, ClaimNumber, SessionId]]:
    """List the buckets that this node's sessions hold, as the database knows it; for after a time without database."""
    return [(row["bucket_id"], row["claim_id"], row["session_id"]) for row in await db.fetch(_CLAIMS_OF_BOOT, boot)]
