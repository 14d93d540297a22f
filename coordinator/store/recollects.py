"""Giving buckets back to the client that was cut off from them.  protocol.md, "Recollecting" """

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator.model import Boot, BucketId, Claimed, ClaimNumber, ClientId, SessionId
from coordinator.store.claims import read_claimed
from coordinator.store.pool import Connection

# No claim for this client comes between: what it is regranted is counted by the next claim, and what it has just
# claimed is seen by the price of having been cut off.
_LOCK_HOLDS = "SELECT lock_holds($1, service_id) FROM membership WHERE client_id = $1 ORDER BY service_id"

# The first statement waits for releases of the same buckets that are still under way; the second, with a snapshot
# of its own, sees how they ended.  Nearly all claims of a client are settled: their buckets are not looked at.
# No plan can choose to read what is not of this client: a join might be merged, which walks the index of all buckets;
# and with `client_id = $1` the newest claims of all might be walked through for those of this one.
_LOCK_RECENT = """
WITH recent AS MATERIALIZED (
    SELECT bucket_id, claim_id
      FROM (SELECT bucket_id, claim_id, ended FROM claim
             WHERE (client_id, claim_id) > ($1, 0) AND (client_id, claim_id) <= ($1, 9223372036854775807)
             ORDER BY client_id DESC, claim_id DESC LIMIT 1000) c
     WHERE ended IS NULL OR ended IN ('cut_off', 'drained', 'crashed'))
SELECT bucket_id FROM bucket
 WHERE bucket_id = ANY (ARRAY (SELECT bucket_id FROM recent)) AND claim_id = ANY (ARRAY (SELECT claim_id FROM recent))
   AND state <> 'done'
 ORDER BY bucket_id FOR UPDATE"""

# What was settled through another bucket meanwhile is not handed out again, unless nothing would be left by that.
_SHED_SETTLED = """
WITH settled AS (
    SELECT b.service_id, b.bucket_id, t.item_id,
           count(*) OVER (PARTITION BY b.bucket_id) < items_left(b.settled) AS others
      FROM bucket b JOIN bucket_items c USING (bucket_id)
      JOIN twin t ON b.bucket_id IN (t.first_id, t.second_id) AND t.service_id = b.service_id
     WHERE b.bucket_id = ANY ($1::uuid[]) AND b.twins AND t.settled_by IS NOT NULL
       AND (b.kept_until IS NOT NULL OR (b.session_id <> $2 AND b.bucket_id = ANY ($3::uuid[])))
       AND get_bit(b.settled, array_position(c.items, t.item_id) - 1) = 0),
shed AS (
    DELETE FROM twin t USING settled s
     WHERE s.others AND t.service_id = s.service_id AND t.item_id = s.item_id
    RETURNING s.bucket_id, s.item_id),
bits AS (
    SELECT c.bucket_id, string_agg(CASE WHEN s.item_id IS NULL THEN '0' ELSE '1' END, '' ORDER BY i.n)::varbit AS gone
      FROM bucket_items c
      CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS i (item_id, n)
      LEFT JOIN shed s ON s.bucket_id = c.bucket_id AND s.item_id = i.item_id
     WHERE c.bucket_id IN (SELECT bucket_id FROM shed) GROUP BY c.bucket_id)
UPDATE bucket b SET settled = b.settled | x.gone FROM bits x WHERE b.bucket_id = x.bucket_id"""

# The price of having been cut off is given back too, unless the client took others meanwhile: else it could hold more
# each time.
#
# $1 client
# $2 session that gets them
# $3 buckets that may go back
# $4 those of them that it names
# $5 boot
# $6 the recollect window in seconds
_RECOLLECT = """
WITH again AS MATERIALIZED (
    SELECT b.bucket_id, b.claim_id AS former, b.session_id AS taken_from, c.ended = 'cut_off' AS cut_off, c.ended_at,
           c.begun_at
      FROM bucket b
      JOIN claim c ON c.claim_id = b.claim_id
      JOIN membership m ON m.client_id = $1 AND m.service_id = b.service_id AND m.joined AND m.inactive IS NULL
      JOIN service s ON s.service_id = b.service_id AND s.state <> 'revoked'
     WHERE b.bucket_id = ANY ($3::uuid[]) AND c.client_id = $1
       AND (b.kept_until IS NOT NULL
         OR (b.state = 'ready' AND c.ended IN ('cut_off', 'drained', 'crashed')
             AND c.ended_at > counted_since($6))
         OR (b.session_id <> $2 AND b.bucket_id = ANY ($4::uuid[])))),
taken AS (
    UPDATE bucket b
       SET state = CASE WHEN a.taken_from IS NULL THEN 'claimed' ELSE b.state END,
           claim_id = nextval('claim_number'), client_id = $1, session_id = $2, boot = $5,
           touched_at = CASE WHEN a.taken_from IS NULL THEN now() ELSE b.touched_at END,
           kept_until = NULL, split_at = NULL,
           attempts = b.attempts - CASE WHEN a.cut_off IS TRUE THEN 1 ELSE 0 END
      FROM again a WHERE b.bucket_id = a.bucket_id
    RETURNING b.service_id, b.bucket_id, b.claim_id, b.client_id, b.session_id, b.attempts, b.settled,
              b.state = 'dead' AS dead, a.former, a.taken_from, a.cut_off, a.ended_at,
              a.begun_at),
noted AS (
    INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given, begun_at)
    SELECT claim_id, bucket_id, service_id, client_id, session_id, $5, ~settled, begun_at FROM taken),
ended AS (
    UPDATE claim c SET ended = 'recollected', ended_at = coalesce(c.ended_at, now()), spent = false
      FROM taken t WHERE c.claim_id = t.former),
refund AS (
    UPDATE return_block g
       SET times = g.times - 1,
           until = least(g.until, now() + make_interval(secs => least(30 * 2 ^ least(g.times - 2, 10), 3600)))
      FROM taken t WHERE t.cut_off AND g.client_id = $1 AND g.bucket_id = t.bucket_id AND g.times > 1),
refund_whole AS (
    DELETE FROM return_block g USING taken t
     WHERE t.cut_off AND g.client_id = $1 AND g.bucket_id = t.bucket_id AND g.times = 1),
calmed AS (
    UPDATE membership m
       SET streak = greatest(m.streak - 1, 0), disconnects = greatest(m.disconnects - 1, 0),
           returned = greatest(m.returned - 1, 0),
           wait_until = CASE WHEN m.streak > 2 THEN m.wait_until END
     WHERE m.client_id = $1 AND m.service_id IN (SELECT service_id FROM taken WHERE cut_off)
       AND NOT EXISTS (SELECT FROM bucket b JOIN claim k USING (claim_id)
                        WHERE b.client_id = $1 AND b.service_id = m.service_id
                          AND k.begun_at > (SELECT min(ended_at) FROM taken t
                                             WHERE t.cut_off AND t.service_id = m.service_id))
    RETURNING m.service_id),
of_blocks AS (
    UPDATE newcomer_block n
       SET streak = greatest(n.streak - x.buckets, 0),
           wait_until = CASE WHEN n.streak - x.buckets > free_streak_of_block() THEN n.wait_until END
      FROM (SELECT strangers_block(s.address) AS block, t.service_id, count(*) AS buckets
              FROM taken t
              JOIN claim c ON c.claim_id = t.former
              JOIN session s ON s.session_id = c.session_id
             WHERE t.cut_off AND c.block_paid GROUP BY 1, 2) x
     WHERE n.block = x.block AND n.service_id = x.service_id AND n.service_id IN (SELECT service_id FROM calmed))
SELECT t.service_id, t.bucket_id, t.claim_id, t.client_id, t.session_id, t.attempts, t.settled::text AS settled,
       c.items, o.frame, t.former, t.taken_from, t.dead, extract(epoch FROM now() - t.begun_at)::float8 AS age
  FROM taken t JOIN bucket_items c USING (bucket_id) JOIN open_bucket o USING (bucket_id) ORDER BY t.claim_id"""


@dataclass(frozen=True, slots=True)
class Regranted:
    """A bucket that its client has again; `taken_from` is another live session of the same client, or None."""

    claimed: Claimed
    former: ClaimNumber
    taken_from: SessionId | None


async def recollect(
    db: Connection,
    client: ClientId,
    session: SessionId,
    named: Sequence[BucketId],
    boot: Boot,
    recollect_window: float,
) -> list[Regranted]:
    """Give a client back those of its cut-off buckets that nobody has claimed since; within a transaction.

    `named` are buckets that may also be taken over from another live session of the same client.
    """
    await db.execute(_LOCK_HOLDS, client)
    candidates = [row["bucket_id"] for row in await db.fetch(_LOCK_RECENT, client)]
    if not candidates:
        return []

    await db.execute(_SHED_SETTLED, candidates, session, list(named))
    rows = await db.fetch(_RECOLLECT, client, session, candidates, list(named), boot, recollect_window)

    return [
        Regranted(
            replace(read_claimed(row), dead=row["dead"], age=row["age"]), ClaimNumber(row["former"]), row["taken_from"]
        )
        for row in rows
    ]


_KEEP_FOR_RECONNECT = """
UPDATE bucket SET session_id = NULL, kept_until = now() + make_interval(secs => $2)
 WHERE bucket_id IN (SELECT bucket_id FROM bucket WHERE client_id IS NOT NULL AND session_id = ANY ($1::uuid[])
                      ORDER BY bucket_id FOR UPDATE)"""


async def keep_for_reconnect(db: Connection, sessions: Sequence[SessionId], reconnect_window: float) -> None:
    """Keep the buckets of these sessions for their clients, for `reconnect_window` seconds; their node drains."""
    await db.execute(_KEEP_FOR_RECONNECT, list(sessions), reconnect_window)
