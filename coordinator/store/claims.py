"""Who holds which bucket: claim, release, and what the clock does.

Every statement here moves whole buckets and is one statement, so that it is all or nothing however many nodes
run it at once.  The table of states is beside `bucket` in the schema.
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

MAX_ATTEMPTS = 3
"""After so many claims that ended without settling it, a bucket is cut up.  protocol.md, "Give-backs" """

FRONT = 128
"""Of so many buckets at the front of the pool, beside those that are asked for, each may be the next of its rank."""

# Drawn anew at each claim among the front of the pool: a run of the builder is 100 buckets of the usual size.  The
# order of `shuffle` alone would not do: who takes the first one and returns it leaves those behind that rank later,
# so that what was returned would nearly always come next.  The random bytes ($6) come from here, since
# gen_random_uuid() asks the operating system for each row.  The front is an array of places, and the second look at
# the state is one that no index serves: a plan that joins it with the pool itself costs more with every ready bucket
# (70 ms with 200,000). Served in the order of $2; a client that has given back some bucket is left to _CLAIM_CHOOSY,
# one that has to wait is not served at all.
_CLAIM = """
WITH demand AS (
    SELECT d.client_id, d.session_id, d.n
      FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS d (client_id, session_id, n)
      JOIN membership m ON m.client_id = d.client_id AND m.service_id = $1 AND m.joined AND m.inactive IS NULL
      JOIN client k ON k.client_id = d.client_id AND k.registered AND k.deactivated IS NULL
     WHERE (m.wait_until IS NULL OR m.wait_until <= now())
       AND (m.report_until IS NULL OR m.report_until <= now())
       AND NOT EXISTS (SELECT FROM return_block g WHERE g.client_id = d.client_id AND g.until > now())),
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

_CLAIM_CHOOSY = """
WITH picked AS MATERIALIZED (
    SELECT b.bucket_id
      FROM (SELECT c.bucket_id, row_number() OVER (ORDER BY c.rank_at, c.shuffle)::int AS n FROM bucket c
             WHERE c.service_id = $1 AND c.state = 'ready' AND c.split_at IS NULL
               AND NOT EXISTS (SELECT FROM return_block g
                                WHERE g.client_id = $2 AND g.bucket_id = c.bucket_id AND g.until > now())
             ORDER BY c.rank_at, c.shuffle LIMIT 128) w
      JOIN bucket b USING (bucket_id)
     WHERE b.state = 'ready' AND b.split_at IS NULL
       AND EXISTS (SELECT FROM membership m
                     JOIN client k ON k.client_id = m.client_id AND k.registered AND k.deactivated IS NULL
                    WHERE m.client_id = $2 AND m.service_id = $1 AND m.joined AND m.inactive IS NULL
                      AND (m.wait_until IS NULL OR m.wait_until <= now())
                      AND (m.report_until IS NULL OR m.report_until <= now()))
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

_WAITS = """
SELECT m.client_id, extract(epoch FROM greatest(m.wait_until, m.report_until) - now())::float8 AS seconds,
       EXISTS (SELECT FROM return_block g WHERE g.client_id = m.client_id AND g.until > now()) AS choosy
  FROM membership m WHERE m.service_id = $1 AND m.client_id = ANY ($2::text[])"""


@dataclass(frozen=True, slots=True)
class Handout:
    """What one claim statement handed out; `left` ready buckets remain, as far as it looked (`FRONT` at most)."""

    claimed: list[Claimed]
    left: int


async def claim(db: Connection, service: ServiceId, demands: Sequence[Demand], boot: Boot) -> Handout:
    """Hand out the front of the ready pool, one bucket for each demand, in the order of the demands.

    Hands out at most one bucket a demand.  Clients that gave something back lately are not served here
    (`claim_choosy`), those that have to wait not at all (`waits` tells which).
    """
    rows = await db.fetch(
        _CLAIM,
        service,
        [demand.client_id for demand in demands],
        [demand.session_id for demand in demands],
        boot,
        len(demands),
        secrets.token_bytes(8 * (len(demands) + FRONT)),
    )
    return Handout([claimed(row) for row in rows], min(rows[0]["ready"] - len(rows), FRONT) if rows else 0)


async def claim_choosy(db: Connection, service: ServiceId, demand: Demand, boot: Boot) -> Claimed | None:
    """As `claim`, for one client that must not get back what it lately gave back."""
    chance = secrets.token_bytes(8 * FRONT)
    row = await db.fetchrow(_CLAIM_CHOOSY, service, demand.client_id, demand.session_id, boot, chance)
    return None if row is None else claimed(row)


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a client was not served: `seconds` to wait (None: need not), or buckets that it gave back."""

    client_id: ClientId
    seconds: float | None
    choosy: bool


async def waits(db: Connection, service: ServiceId, clients: Sequence[ClientId]) -> list[Wait]:
    """What keeps each of these clients from being served."""
    return [
        Wait(ClientId(row["client_id"]), row["seconds"] if (row["seconds"] or 0) > 0 else None, row["choosy"])
        for row in await db.fetch(_WAITS, service, list(clients))
    ]


def claimed(row: Any) -> Claimed:
    """A row of a claim statement."""
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


# What all ways back have in common: the buckets in `held` become ready, with their rank and their settled items;
# the claims end as $1; a failed attempt ($2) counts, and at the third one the bucket is set aside to be cut up
# once nobody can recollect it ($3 seconds).  A claim that was never delivered costs nothing.  If one of the buckets has
# items in a second bucket too, nothing happens unless $5: that takes a transaction, see `_free`.
_FREE = """
freed AS (
    UPDATE bucket b
       SET state = 'ready', client_id = NULL, session_id = NULL, boot = NULL, touched_at = NULL,
           kept_until = NULL, shuffle = gen_random_uuid(),
           attempts = b.attempts + CASE WHEN h.delivered THEN $2::int ELSE 0 END,
           split_at = CASE WHEN h.delivered AND $2::int > 0 AND b.attempts + $2::int >= 3
                           THEN now() + make_interval(secs => $3) END
      FROM held h WHERE b.bucket_id = h.bucket_id AND ($5 OR NOT EXISTS (SELECT FROM held WHERE twins))
    RETURNING b.service_id, b.bucket_id, b.claim_id, h.client_id, h.session_id, h.delivered,
              length(b.settled) - bit_count(b.settled)::int AS remaining),
ended AS (
    UPDATE claim c SET ended_at = now(), ended = CASE WHEN f.delivered THEN $1 ELSE 'undelivered' END
      FROM freed f WHERE c.claim_id = f.claim_id)"""

# What giving back costs ($4: 'given_back', 'disconnects', 'dead' or none): that bucket is not offered to that
# client for 30 s, doubling to 1 h; from the second in a row on, the client waits 1 s, doubling to 5 min.
_COST = """
cost AS (
    INSERT INTO return_block AS g (client_id, bucket_id, times, until)
    SELECT client_id, bucket_id, 1, now() + interval '30 seconds' FROM freed
     WHERE delivered AND $4 IN ('given_back', 'disconnects')
    ON CONFLICT (client_id, bucket_id) DO UPDATE
       SET times = g.times + 1,
           until = now() + make_interval(secs => least(30 * 2 ^ least(g.times, 10), 3600))),
payers AS MATERIALIZED (
    SELECT client_id, service_id FROM membership
     WHERE $4 <> '' AND (client_id, service_id) IN (SELECT client_id, service_id FROM freed WHERE delivered)
     ORDER BY client_id, service_id FOR NO KEY UPDATE),
counted AS (
    UPDATE membership m
       SET streak = m.streak + CASE WHEN $4 = 'dead' THEN 0 ELSE 1 END,
           wait_until = CASE WHEN $4 <> 'dead' AND m.streak >= 1
                             THEN now() + make_interval(secs => least(2 ^ least(m.streak - 1, 10), 300))
                             ELSE m.wait_until END,
           given_back = m.given_back + CASE WHEN $4 = 'given_back' THEN f.n ELSE 0 END,
           disconnects = m.disconnects + CASE WHEN $4 = 'disconnects' THEN 1 ELSE 0 END,
           dead = m.dead + CASE WHEN $4 = 'dead' THEN f.n ELSE 0 END,
           -- For its health, what goes back within a second goes back once: a client that stops returns all it has.
           returned = m.returned + CASE WHEN $4 = 'dead' OR m.returned_at > now() - interval '1 second'
                                        THEN 0 ELSE 1 END,
           returned_at = CASE WHEN $4 = 'dead' THEN m.returned_at ELSE now() END,
           well = 0
      FROM (SELECT client_id, service_id, count(*) AS n FROM freed JOIN payers USING (client_id, service_id)
             WHERE delivered GROUP BY 1, 2) f
     WHERE m.client_id = f.client_id AND m.service_id = f.service_id)"""

_HELD_BY_SESSION = """
WITH held AS MATERIALIZED (
    SELECT bucket_id, client_id, session_id, twins, bucket_id = ANY ($8::uuid[]) AS delivered FROM bucket
     WHERE client_id = $6 AND session_id = $7 ORDER BY bucket_id FOR UPDATE),"""

_HELD_BY_CLIENT = """
WITH held AS MATERIALIZED (
    SELECT bucket_id, client_id, session_id, twins, true AS delivered FROM bucket
     WHERE client_id = $6 AND ($7::int IS NULL OR service_id = $7) ORDER BY bucket_id FOR UPDATE),"""

_HELD_BY_CLAIM = """
WITH held AS MATERIALIZED (
    SELECT bucket_id, client_id, session_id, twins, true AS delivered FROM bucket
     WHERE bucket_id = $6 AND claim_id = $7 AND client_id IS NOT NULL FOR UPDATE),"""

_HELD_OF_SERVICE = """
WITH held AS MATERIALIZED (
    SELECT bucket_id, client_id, session_id, twins, true AS delivered FROM bucket
     WHERE service_id = $6 AND state IN ('claimed', 'dead') ORDER BY bucket_id FOR UPDATE),"""

_HELD_BY_NOBODY = """
WITH held AS MATERIALIZED (
    SELECT bucket_id, client_id, session_id, twins, true AS delivered FROM bucket b
     WHERE state IN ('claimed', 'dead') AND kept_until IS NULL
       AND NOT EXISTS (SELECT FROM node n WHERE n.boot = b.boot AND n.state <> 'gone')
     ORDER BY bucket_id LIMIT $6 FOR UPDATE SKIP LOCKED),"""

_HELD_TOO_LONG_KEPT = """
WITH held AS MATERIALIZED (
    SELECT bucket_id, client_id, session_id, twins, true AS delivered FROM bucket
     WHERE kept_until <= now() ORDER BY kept_until LIMIT $6 FOR UPDATE SKIP LOCKED),"""

_HELD_DEAD = """
WITH held AS MATERIALIZED (
    SELECT bucket_id, client_id, session_id, twins, true AS delivered FROM bucket
     WHERE service_id = $6 AND state = 'dead' AND touched_at <= now() - make_interval(secs => $7)
     ORDER BY touched_at LIMIT 500 FOR UPDATE SKIP LOCKED),"""

# One row at least, to tell that there are such twins.
_FREED = """
SELECT f.*, t.twins FROM (SELECT bool_or(twins) AS twins FROM held) t LEFT JOIN freed f ON true"""

# What a session held need not reach the disk before others see that it is free: a claim of it commits behind it in the
# same log.
_FREED_AT_ONCE = """
SELECT f.*, t.twins, set_config('synchronous_commit', 'off', true)
  FROM (SELECT bool_or(twins) AS twins FROM held) t LEFT JOIN freed f ON true"""

_RELEASE_SESSION = _HELD_BY_SESSION + _FREE + "," + _COST + _FREED_AT_ONCE
_RELEASE_CLIENT = _HELD_BY_CLIENT + _FREE + "," + _COST + _FREED
_RELEASE_CLAIM = _HELD_BY_CLAIM + _FREE + "," + _COST + _FREED
_RELEASE_SERVICE = _HELD_OF_SERVICE + _FREE + "," + _COST + _FREED
_RELEASE_CRASHED = _HELD_BY_NOBODY + _FREE + "," + _COST + _FREED
_RELEASE_KEPT = _HELD_TOO_LONG_KEPT + _FREE + "," + _COST + _FREED
_RELEASE_DEAD = _HELD_DEAD + _FREE + "," + _COST + _FREED


@dataclass(frozen=True, slots=True)
class EndReason:
    """One way in which a claim ends without being settled.

    `ended` is what the claim's row says; `attempts` is 1 where it counts as a failed attempt; `cost` names the
    counter of the client that pays, '' where nobody does.
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
    """Free all that one session holds; safe to repeat.  `recollect_window` in seconds.

    What is not among the `delivered` costs nothing.  Others see it at once; it reaches the disk with the next
    transaction that waits for that.
    """
    return await _free(db, _RELEASE_SESSION, way, recollect_window, client, session, list(delivered))


async def release_client(
    db: Connection, client: ClientId, service: ServiceId | None, way: EndReason, recollect_window: float
) -> list[Freed]:
    """Free all that one client holds, in one service or in all, on whatever node."""
    return await _free(db, _RELEASE_CLIENT, way, recollect_window, client, service)


async def release_claim(
    db: Connection, bucket: BucketId, claim: ClaimNumber, way: EndReason, recollect_window: float
) -> list[Freed]:
    """Free one bucket, if that claim is still the current one."""
    return await _free(db, _RELEASE_CLAIM, way, recollect_window, bucket, claim)


async def release_service(db: Connection, service: ServiceId, way: EndReason) -> list[Freed]:
    """Free all that is held in one service."""
    return await _free(db, _RELEASE_SERVICE, way, 0.0, service)


async def release_crashed(db: Connection, limit: int = 1000) -> list[Freed]:
    """Free what sessions of nodes held that are gone, but for what is kept for a drained node's clients.

    A sweep, not a list of nodes: whatever was missed (a crash between two steps, a claim that committed late) is
    found at the next one.
    """
    return await _free(db, _RELEASE_CRASHED, CRASHED, 0.0, limit)


async def release_kept(db: Connection, limit: int = 500) -> list[Freed]:
    """Free what was kept for clients that did not come back in time."""
    return await _free(db, _RELEASE_KEPT, DRAINED, 0.0, limit)


async def release_dead(
    db: Connection, service: ServiceId, release_after: float, recollect_window: float
) -> list[Freed]:
    """Free the buckets that were marked dead `release_after` seconds ago."""
    return await _free(db, _RELEASE_DEAD, DEAD, recollect_window, service, release_after)


async def _free(db: Connection, statement: str, way: EndReason, recollect_window: float, *which: object) -> list[Freed]:
    rows = await db.fetch(statement, way.ended, way.attempts, recollect_window, way.cost, False, *which)
    if rows[0]["twins"]:
        # In one transaction with what follows: nobody may claim a twin's item in between.
        async with db.transaction():
            rows = await db.fetch(statement, way.ended, way.attempts, recollect_window, way.cost, True, *which)
            await leave_twins(db, [row["bucket_id"] for row in rows if row["bucket_id"]])
    return [_freed(row) for row in rows if row["bucket_id"]]


def _freed(row: Any) -> Freed:
    return Freed(
        ServiceId(row["service_id"]),
        BucketId(row["bucket_id"]),
        ClaimNumber(row["claim_id"]),
        ClientId(row["client_id"]),
        None if row["session_id"] is None else SessionId(row["session_id"]),
        row["remaining"],
    )


# A returned bucket gives up the items that stand in another open bucket, or were settled there, meanwhile; the
# other copy goes on alone.  One that is empty by that is done.
_LOCK_READY = """
SELECT bucket_id FROM bucket WHERE bucket_id = ANY ($1::uuid[]) AND state = 'ready' ORDER BY bucket_id FOR UPDATE"""

_LEAVE_TWINS = """
WITH gone AS (
    DELETE FROM twin t
     USING bucket b JOIN bucket_items c USING (bucket_id)
     WHERE b.bucket_id = ANY ($1::uuid[]) AND b.state = 'ready' AND b.bucket_id IN (t.first_id, t.second_id)
       AND ($2::bigint[] IS NULL OR t.item_id = ANY ($2))
       -- What was settled here is remembered until the other copy is back: its result is to be discarded.
       AND get_bit(b.settled, array_position(c.items, t.item_id) - 1) = 0
    RETURNING b.bucket_id, t.item_id),
bits AS (
    SELECT c.bucket_id, string_agg(CASE WHEN g.item_id IS NULL THEN '0' ELSE '1' END, '' ORDER BY i.n)::varbit AS gone
      FROM bucket_items c
      CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS i (item_id, n)
      LEFT JOIN gone g ON g.bucket_id = c.bucket_id AND g.item_id = i.item_id
     WHERE c.bucket_id IN (SELECT bucket_id FROM gone) GROUP BY c.bucket_id)
UPDATE bucket b
   SET settled = b.settled | s.gone,
       state = CASE WHEN bit_count(b.settled | s.gone) = length(b.settled) THEN 'done' ELSE b.state END,
       split_at = CASE WHEN bit_count(b.settled | s.gone) = length(b.settled) THEN NULL ELSE b.split_at END
  FROM bits s WHERE b.bucket_id = s.bucket_id AND b.state = 'ready'"""


async def leave_twins(db: Connection, buckets: Sequence[UUID], items: Sequence[ItemId] | None = None) -> None:
    """Take out of these ready buckets what stands in a second one: these items, or all; within a transaction."""
    ready = [row["bucket_id"] for row in await db.fetch(_LOCK_READY, list(buckets))]
    await db.execute(_LEAVE_TWINS, ready, None if items is None else list(items))


_KEEP = """
UPDATE bucket SET session_id = NULL, kept_until = now() + make_interval(secs => $2)
 WHERE bucket_id IN (SELECT bucket_id FROM bucket WHERE client_id IS NOT NULL AND session_id = ANY ($1::uuid[])
                      ORDER BY bucket_id FOR UPDATE)"""


async def keep(db: Connection, sessions: Sequence[SessionId], reconnect_window: float) -> None:
    """Keep what these sessions hold for their clients, for so many seconds; their node drains."""
    await db.execute(_KEEP, list(sessions), reconnect_window)


_MARK_DEAD = """
WITH marked AS (
    UPDATE bucket SET state = 'dead', touched_at = now()
     WHERE bucket_id = ANY (ARRAY (
        SELECT bucket_id FROM bucket
         WHERE service_id = $1 AND state = 'claimed' AND kept_until IS NULL
           AND touched_at <= now() - make_interval(secs => $2)
         ORDER BY touched_at LIMIT 500 FOR UPDATE SKIP LOCKED))
    RETURNING service_id, bucket_id, claim_id, client_id, session_id,
              length(settled) - bit_count(settled)::int AS remaining),
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
    """Mark as dead what settled nothing for so many seconds; the holders keep it for now."""
    return [_freed(row) for row in await db.fetch(_MARK_DEAD, service, dead_after)]


_HELD_COUNT = "SELECT count(*) FROM bucket WHERE client_id = $1 AND service_id = $2"


async def held_count(db: Connection, client: ClientId, service: ServiceId) -> int:
    """How many buckets of a service a client holds, all its sessions on all nodes together."""
    return int(await db.fetchval(_HELD_COUNT, client, service))


_CLAIMS_OF_BOOT = """
SELECT bucket_id, claim_id, session_id FROM bucket
 WHERE boot = $1 AND state IN ('claimed', 'dead') AND kept_until IS NULL"""


async def claims_of_boot(db: Connection, boot: Boot) -> list[tuple[BucketId, ClaimNumber, SessionId]]:
    """What the database believes this node's sessions hold; asked after a time without database."""
    return [(row["bucket_id"], row["claim_id"], row["session_id"]) for row in await db.fetch(_CLAIMS_OF_BOOT, boot)]
