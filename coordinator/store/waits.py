"""The facts by which it is known why clients wait; what follows from them is decided in `flow/wait_reasons.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from coordinator.model import ClientId, Demand, ServiceId, ServiceSettings
from coordinator.store.claim_rules import budget_rule, hold_rule
from coordinator.store.pool import Connection

# What is ready is looked at once, and by the few that gave something back lately, up to the first bucket that they may
# have.
#
# $1 service
# $2 clients
# $3 their addresses
# $4 items of a bucket
# $5 buckets that a newcomer may hold
# $6 buckets that anyone may hold
# $7 items that may be handed out in a minute, $8 buckets that all clients may hold; null: any number
_FIND_WAITS = """
WITH rooms AS MATERIALIZED (
    SELECT block, newcomers_left(block, $1) AS room
      FROM (SELECT DISTINCT strangers_block(d.address) AS block
              FROM unnest($2::text[], $3::text[]) AS d (client_id, address)
              JOIN membership m ON m.client_id = d.client_id AND m.service_id = $1 AND m.settled <= m.taken_back) b
     WHERE block IS NOT NULL),
supply AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL) AS ready,
           EXISTS (SELECT FROM waiting WHERE service_id = $1) AS queued,
           (SELECT min(split_at) FROM bucket WHERE service_id = $1 AND split_at IS NOT NULL) AS split_at,
           CASE WHEN $7::int IS NOT NULL THEN budget_until($1, $7) END AS budget_until,
           $8::int IS NOT NULL AND $8 <= (SELECT count(*) FROM bucket WHERE service_id = $1
                                                                      AND state IN ('claimed', 'dead')) AS all_out)
SELECT m.client_id, now() AS at,
       m.joined AND m.inactive IS NULL AND c.registered AND c.deactivated IS NULL AS works,
       CASE WHEN m.report_until > now() THEN m.report_until END AS reported_until,
       CASE WHEN m.wait_until > now() OR w.block_until > now() THEN greatest(m.wait_until, w.block_until)
       END AS backing_off_until,
       CASE WHEN m.wait_until > now() THEN m.streak ELSE 0 END AS given_back,
       h.held, may_hold(m.health, m.streak, 9223372036854775807, $4, $5, $6) AS most,
       may_hold(m.health, m.streak, m.settled - m.taken_back, $4, $5, $6) AS most_now,
       coalesce(r.room <= 0, false) AS crowded,
       g.until IS NOT NULL AS returned,
       CASE WHEN g.until IS NOT NULL AND s.ready AND NOT EXISTS (
                SELECT FROM bucket b
                 WHERE b.service_id = $1 AND b.state = 'ready' AND b.split_at IS NULL
                   AND NOT EXISTS (SELECT FROM return_block o WHERE o.client_id = m.client_id
                                                                AND o.bucket_id = b.bucket_id AND o.until > now()))
            THEN (SELECT min(o.until) FROM return_block o JOIN bucket b USING (bucket_id)
                   WHERE o.client_id = m.client_id AND o.until > now()
                     AND b.service_id = $1 AND b.state = 'ready' AND b.split_at IS NULL)
       END AS returned_until,
       s.ready, s.queued, s.split_at, s.budget_until, s.all_out
  FROM unnest($2::text[], $3::text[]) AS d (client_id, address)
  JOIN membership m ON m.client_id = d.client_id AND m.service_id = $1
  JOIN client c ON c.client_id = m.client_id
 CROSS JOIN supply s
 CROSS JOIN LATERAL (
    SELECT count(*) AS held FROM bucket b WHERE b.client_id = m.client_id AND b.service_id = $1) h
 CROSS JOIN LATERAL (
    SELECT CASE WHEN m.settled <= m.taken_back THEN strangers_block(d.address) END AS block) n
  LEFT JOIN rooms r ON r.block = n.block
  LEFT JOIN LATERAL (
    SELECT wait_until AS block_until FROM newcomer_block WHERE block = n.block AND service_id = $1) w ON true
 CROSS JOIN LATERAL (
    SELECT min(o.until) AS until FROM return_block o WHERE o.client_id = m.client_id AND o.until > now()) g"""


@dataclass(frozen=True, slots=True)
class WaitFacts:
    """The facts about a client in a service `at` one moment of the database; times that have passed are None.

    It holds `held` buckets, and may hold `most_now`, which grows to `most` as it settles more; `crowded`: the newcomers
    of its address hold all that they may together.  `given_back` counts its give-backs in a row, if it waits for them
    itself, else 0.  `returned`: a bucket that it gave back is not offered to it yet; if that is true of all that are
    ready, the first of them is offered again at `returned_until`.

    Of the service: buckets are `ready`, items `queued` for one; `split_at`: one is cut up then; `budget_until`: all
    items of this minute are handed out; `all_out`: its clients hold as many buckets as all of them may.
    """

    client_id: ClientId
    at: datetime
    works: bool
    reported_until: datetime | None
    backing_off_until: datetime | None
    given_back: int
    held: int
    most: int
    most_now: int
    crowded: bool
    returned: bool
    returned_until: datetime | None
    ready: bool
    queued: bool
    split_at: datetime | None
    budget_until: datetime | None = None
    all_out: bool = False


async def find_waits(
    db: Connection, service: ServiceId, demands: Sequence[Demand], settings: ServiceSettings
) -> dict[ClientId, WaitFacts]:
    """Find the facts about these clients, but for those that were never members of the service."""
    addresses = {demand.client_id: demand.address for demand in demands}
    rows = await db.fetch(
        _FIND_WAITS, service, list(addresses), list(addresses.values()), *hold_rule(settings), *budget_rule(settings)
    )
    return {ClientId(row["client_id"]): WaitFacts(**row) for row in rows}
