"""Counters of clients, the figures that the rules of their health look at, and what the rules found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

from coordinator.model import OTHER_KINDS, ClientId, Health, ServiceId
from coordinator.store.pool import Connection

LABEL_HOURS = 6
"""Hours for which kinds of results are kept: a slow client that works gives some hundreds of results in them."""

LABELS_OF_AN_HOUR = 16
"""Kinds of results of one client and service that an hour has; further ones are counted together, as `OTHER_KINDS`.

A plugin may make a kind of what a client wrote.
"""

KEPT_LABELS = 50_000
"""Rows of one service and hour that are kept: the kinds of some ten thousand clients."""

PEERS_COMPARED = 100
"""Clients of a service with which a client is compared: those that worked last."""

MIN_STANDING = 100
"""Items that a client must have settled for others to be compared with it."""

PACE_KEPT = 2000
"""Items of a pace before the older half is forgotten: some buckets."""


@dataclass(slots=True)
class WorkCounts:
    """Counts of one client in one service, since the node last told the database.

    `worked` is false where the client is only to be looked at.  `refused` are submits refused since one was stored,
    `hoarded` asks since an item was settled, `finished` buckets settled whole since a submit was refused; `seconds`
    went into `paced` items.
    """

    worked: bool = False
    assigned: int = 0
    processed: int = 0
    settled: int = 0
    bad_submits: int = 0
    refused: int = 0
    hoarded: int = 0
    finished: int = 0
    seconds: float = 0.0
    paced: int = 0


@dataclass(frozen=True, slots=True)
class MembershipFigures:
    """The figures of one client in one service that its health is judged by; columns of `membership`."""

    client_id: ClientId
    service_id: ServiceId
    health: Health
    health_reason: str | None
    well: int
    died: int
    asked_on: int
    hoarded: int
    refused: int
    returned: int
    seconds: float
    paced: int
    standing: int
    """Items that it has settled and nobody took back."""


# Rows of membership are locked in one order, so that no two statements wait for each other.  What was taken since a
# bucket died is counted among the claims: the counts come when they are written, which may be long after.
#
# $1 clients
# $2 services
# $3 whether it worked, or is only looked at
# $4 buckets assigned
# $5 submits stored
# $6 items settled
# $7 bad submits
# $8 submits refused since one was stored
# $9 asks since an item was settled
# $10 buckets settled whole since a submit was refused
# $11 seconds that went into the next
# $12 items whose pace is known
# $13 buckets settled whole in a row after which those that died are forgotten
# $14 items of a pace after which half of it is forgotten
_COUNT = """
WITH locked AS MATERIALIZED (
    SELECT FROM membership
     WHERE (client_id, service_id) IN (SELECT * FROM unnest($1::text[], $2::int[]))
     ORDER BY client_id, service_id FOR NO KEY UPDATE)
UPDATE membership m
   SET assigned = m.assigned + d.assigned, processed = m.processed + d.processed,
       settled = m.settled + d.settled, bad_submits = m.bad_submits + d.bad_submits,
       last_access = CASE WHEN d.worked THEN now() ELSE m.last_access END,
       well = least(CASE WHEN d.bad_submits > 0 THEN 0 ELSE m.well END + d.finished, $13),
       died = CASE WHEN d.bad_submits = 0 AND m.well + d.finished >= $13 THEN 0 ELSE m.died END,
       died_run = CASE WHEN d.settled > 0 THEN 0 ELSE m.died_run END,
       asked_on = CASE WHEN d.settled > 0 THEN 0
                       WHEN m.died_run > 0
                       THEN (SELECT count(*) FROM claim c
                              WHERE c.client_id = m.client_id AND c.claim_id > m.died_claim
                                AND c.service_id = m.service_id AND c.ended IS DISTINCT FROM 'undelivered'
                                AND (SELECT count(*) FROM claim f      -- not one that it had before
                                      WHERE f.bucket_id = c.bucket_id AND f.claim_id < c.claim_id
                                        AND f.ended = 'recollected') = 0)
                       ELSE m.asked_on END,
       hoarded = CASE WHEN d.settled > 0 THEN 0 ELSE m.hoarded END + d.hoarded,
       refused = CASE WHEN d.processed > 0 THEN 0 ELSE m.refused END + d.refused,
       returned = CASE WHEN d.settled > 0 THEN 0 ELSE m.returned END,
       seconds = CASE WHEN m.paced >= $14 THEN m.seconds / 2 ELSE m.seconds END + d.seconds,
       paced = CASE WHEN m.paced >= $14 THEN m.paced / 2 ELSE m.paced END + d.paced
  FROM unnest($1::text[], $2::int[], $3::bool[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[],
              $10::int[], $11::float8[], $12::int[])
    AS d (client_id, service_id, worked, assigned, processed, settled, bad_submits, refused, hoarded, finished,
          seconds, paced)
 WHERE (SELECT count(*) FROM locked) > 0 AND m.client_id = d.client_id AND m.service_id = d.service_id
RETURNING m.client_id, m.service_id, m.health, m.health_reason, m.well, m.died, m.asked_on, m.hoarded, m.refused,
          m.returned, m.seconds, m.paced, m.settled - m.taken_back AS standing"""


async def count(
    db: Connection, done: Mapping[tuple[ClientId, ServiceId], WorkCounts], well: int
) -> list[MembershipFigures]:
    """Add what a node counted; returns the figures of those clients now.

    After `well` buckets settled whole in a row, those that died before are forgotten.
    """
    if not done:
        return []

    columns = zip(*((*key, *astuple(done[key])) for key in sorted(done)), strict=True)
    return [MembershipFigures(**row) for row in await db.fetch(_COUNT, *map(list, columns), well, PACE_KEPT)]


# $1 services
# $2 clients
# $3 kinds
# $4 results
# $5 kinds of an hour
# $6 the kind of further ones
_COUNT_LABELS = """
INSERT INTO client_label AS l (service_id, hour, client_id, label, n)
SELECT service_id, hour, client_id, CASE WHEN known OR there + place <= $5 THEN label ELSE $6 END, sum(n)
  FROM (SELECT d.*, k.label IS NOT NULL AS known,
               row_number() OVER (PARTITION BY d.service_id, d.client_id, k.label IS NULL ORDER BY d.n DESC) AS place,
               (SELECT count(*) FROM client_label t
                 WHERE t.service_id = d.service_id AND t.hour = d.hour AND t.client_id = d.client_id) AS there
          FROM (SELECT service_id, date_trunc('hour', now()) AS hour, client_id, label, n
                  FROM unnest($1::int[], $2::text[], $3::text[], $4::int[]) AS u (service_id, client_id, label, n)) d
          LEFT JOIN client_label k USING (service_id, hour, client_id, label)) c
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
ON CONFLICT (service_id, hour, client_id, label) DO UPDATE SET n = l.n + excluded.n"""

# Of each hour those go of which there are fewest: clients with so few results are not compared.
_FORGET_LABELS = """
DELETE FROM client_label
 WHERE service_id = ANY ($1::int[])
   AND (hour < now() - make_interval(hours => $2)
        OR ctid = ANY (ARRAY (SELECT place FROM (
               SELECT ctid AS place, row_number() OVER (PARTITION BY service_id, hour ORDER BY n DESC) AS number
                 FROM client_label WHERE service_id = ANY ($1::int[])) r WHERE number > $3)))"""


async def count_labels(db: Connection, labels: Sequence[tuple[ServiceId, ClientId, str, int]]) -> None:
    """Add how often clients gave which kind of result: (service, client, kind, times) each."""
    columns = ([label[n] for label in labels] for n in range(4))
    await db.execute(_COUNT_LABELS, *columns, LABELS_OF_AN_HOUR, OTHER_KINDS)


async def forget_labels(db: Connection, services: Sequence[ServiceId], kept: int = KEPT_LABELS) -> None:
    """Drop the kinds of results of hours that are no longer looked at, and of each hour all but so many."""
    await db.execute(_FORGET_LABELS, list(services), LABEL_HOURS, kept)


# Of the thousands that were there last, so that a crowd of throw-away identities can push nobody out at little cost.
_PEERS = """
SELECT client_id, seconds, paced, standing,
       (SELECT coalesce(strangers_block(s.address), s.client_id) FROM session s
         WHERE s.client_id = m.client_id AND s.ended_at IS NULL ORDER BY s.began_at DESC LIMIT 1) AS block
  FROM (SELECT client_id, seconds, paced, settled - taken_back AS standing, last_access FROM membership
         WHERE service_id = $1 AND joined AND inactive IS NULL ORDER BY last_access DESC LIMIT 5000) m
 WHERE standing >= $3 ORDER BY last_access DESC LIMIT $2"""

_LABELS = """
SELECT client_id, hour, label, n FROM client_label
 WHERE service_id = $1 AND hour > now() - make_interval(hours => $3) AND client_id = ANY ($2::text[])"""


@dataclass(frozen=True, slots=True)
class PeerFigures:
    """The clients of standing that worked last in a service, and the kinds of their results by hour.

    `standing` are the items of each that nobody took back, `paces` are (seconds, items).  `blocks` are the blocks of
    addresses from which each is connected; on loopback each is its own, and all that are not connected are of one.
    """

    standing: dict[ClientId, int]
    paces: dict[ClientId, tuple[float, int]]
    labels: dict[datetime, dict[ClientId, dict[str, int]]]
    blocks: dict[ClientId, str]


async def peers(db: Connection, service: ServiceId, also: Sequence[ClientId]) -> PeerFigures:
    """Load the clients that others are compared with, and the kinds of results of `also`."""
    rows = await db.fetch(_PEERS, service, PEERS_COMPARED, MIN_STANDING)
    standing = {ClientId(row["client_id"]): row["standing"] for row in rows}
    paces = {ClientId(row["client_id"]): (row["seconds"], row["paced"]) for row in rows}
    labels: dict[datetime, dict[ClientId, dict[str, int]]] = {}
    for row in await db.fetch(_LABELS, service, [*{*paces, *also}], LABEL_HOURS):
        labels.setdefault(row["hour"], {}).setdefault(row["client_id"], {})[row["label"]] = row["n"]
    blocks = {ClientId(row["client_id"]): row["block"] or "" for row in rows}
    return PeerFigures(standing, paces, labels, blocks)


_SET_HEALTH = """
UPDATE membership SET health = $3, health_reason = $4
 WHERE client_id = $1 AND service_id = $2 AND health = $5 RETURNING client_id"""


async def set_health(
    db: Connection, client: ClientId, service: ServiceId, health: Health, reason: str | None, before: Health
) -> bool:
    """Set the health of a client that was `before`; False if another node was faster."""
    return await db.fetchval(_SET_HEALTH, client, service, health, reason, before) is not None


_UNWELL = """
SELECT service_id, health, count(*) AS clients FROM working_membership WHERE health <> 'ok' GROUP BY 1, 2"""


async def unwell(db: Connection) -> dict[tuple[ServiceId, Health], int]:
    """Count the clients that are watched, and flagged, by service; only those that may work there."""
    return {(ServiceId(row["service_id"]), row["health"]): row["clients"] for row in await db.fetch(_UNWELL)}
