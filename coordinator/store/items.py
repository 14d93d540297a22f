"""The catalogue, waiting items, and the results of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, ItemState, ServiceId, SessionId, WaitingItem
from coordinator.store.pool import Connection


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """A row of the catalogue."""

    item: ItemId
    key: str
    attributes: dict[str, Any]


# New keys get a row and wait in these services; known ones keep their attributes.  In one order of keys, so that two of
# these never wait for each other.  Services that are added wait until the items have joined the others
# (`services.lock_catalogue`).  Others see the items before they have reached the disk: a claim of them commits behind
# this in the same log, and who added them waits for it (`Database.flush`).
_ADD = """
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtext('coordinator.catalogue')),
           set_config('synchronous_commit', 'off', true)),
new AS (
    INSERT INTO item (key, attributes)
    SELECT key, attributes::jsonb FROM locked CROSS JOIN unnest($1::text[], $2::text[]) AS g (key, attributes)
     ORDER BY key
    ON CONFLICT (key) DO NOTHING RETURNING item_id),
joined AS (
    INSERT INTO item_service (service_id, item_id)
    SELECT service_id, item_id FROM new CROSS JOIN unnest($3::int[]) AS s (service_id)),
waits AS (
    INSERT INTO waiting (service_id, item_id, rank_at, since, priority)
    SELECT service_id, item_id, now() - make_interval(secs => head_start), now(), $5
      FROM new CROSS JOIN unnest($3::int[], $4::float8[]) AS s (service_id, head_start))
SELECT item_id FROM new"""

# A statement of its own, which sees what another one added meanwhile.  Locked against deletion until the services have
# taken them.
_KNOWN = """
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtext('coordinator.catalogue')),
           set_config('synchronous_commit', 'off', true))
SELECT item_id FROM locked CROSS JOIN item WHERE key = ANY ($1::text[]) ORDER BY item_id FOR KEY SHARE OF item"""

# A known item joins a service where it has no state; it never reopens a settled one.
_JOIN = """
WITH joined AS (
    INSERT INTO item_service (service_id, item_id) SELECT $1, item_id FROM unnest($2::bigint[]) AS i (item_id)
    ON CONFLICT DO NOTHING RETURNING item_id)
INSERT INTO waiting (service_id, item_id, rank_at, since, priority)
SELECT $1, item_id, now() - make_interval(secs => $4), now(), $3 FROM joined"""


async def add(
    db: Connection, items: Sequence[tuple[str, str]], services: Mapping[ServiceId, float], priority: int
) -> list[ItemId]:
    """Put (key, attributes as JSON) into the catalogue and let the new ones wait; returns the ids of those.

    `services` are where they wait, with what the priority is worth there, in seconds.  The keys must be different from
    each other.  The transaction does not wait for the disk.
    """
    keys, attributes = [key for key, _ in items], [text for _, text in items]
    rows = await db.fetch(_ADD, keys, attributes, list(services), list(services.values()), priority)
    return [ItemId(row["item_id"]) for row in rows]


async def known(db: Connection, keys: Sequence[str]) -> list[ItemId]:
    """Find the items of these keys; nobody deletes them until the transaction ends, which waits for no disk."""
    return [ItemId(row["item_id"]) for row in await db.fetch(_KNOWN, list(keys))]


async def join(db: Connection, service: ServiceId, items: Sequence[ItemId], priority: int, head_start: float) -> int:
    """Let items wait in a service where they have no state yet; returns the number of them.

    `head_start` is what the priority is worth, in seconds.
    """
    return int((await db.execute(_JOIN, service, list(items), priority, head_start)).split()[-1])


# A keyset over the index (service_id, rank_at, item_id): the last page costs what the first one costs.
_WAITING = """
SELECT w.item_id, i.key, w.rank_at, w.since, w.priority
  FROM (SELECT * FROM waiting WHERE service_id = $1 AND (rank_at, item_id) > ($2, $3)
         ORDER BY rank_at, item_id LIMIT $4) w
 -- OFFSET 0 keeps this a look-up for each row: a join of its own choice may read the whole catalogue.
 CROSS JOIN LATERAL (SELECT key FROM item WHERE item_id = w.item_id OFFSET 0) i
 ORDER BY w.rank_at, w.item_id"""


async def waiting(db: Connection, service: ServiceId, after: tuple[datetime, int], limit: int) -> list[WaitingItem]:
    """List waiting items in rank order, from behind `after` (rank, item) on."""
    return [
        WaitingItem(ItemId(row["item_id"]), row["key"], row["rank_at"], row["since"], row["priority"])
        for row in await db.fetch(_WAITING, service, *after, limit)
    ]


_FIND_ITEM = "SELECT item_id, key, attributes FROM item WHERE key = $1"

# As the statistics count: of two copies the one that can be had counts, and none if one of them was settled.
_STATES = """
SELECT s.name,
       CASE WHEN EXISTS (SELECT FROM waiting w WHERE w.service_id = x.service_id AND w.item_id = $1) THEN 'waiting'
            WHEN EXISTS (SELECT FROM quarantine q WHERE q.service_id = x.service_id AND q.item_id = $1)
            THEN 'quarantined'
            ELSE coalesce((SELECT CASE WHEN b.state = 'ready' THEN 'ready' ELSE 'claimed' END
                             FROM bucket_items c JOIN bucket b USING (bucket_id)
                            WHERE c.open AND c.items @> ARRAY[$1] AND b.service_id = x.service_id
                              AND b.state <> 'done'
                              AND get_bit(b.settled, array_position(c.items, $1) - 1) = 0
                              AND NOT EXISTS (SELECT FROM twin t
                                               WHERE t.service_id = x.service_id AND t.item_id = $1
                                                 AND t.settled_by IS NOT NULL)
                            ORDER BY b.state <> 'ready' LIMIT 1), 'settled') END AS state
  FROM item_service x JOIN service s USING (service_id)
 WHERE x.item_id = $1 AND x.service_id IN (SELECT service_id FROM service) ORDER BY s.name"""

_RESULTS_OF = """
SELECT s.name AS service, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
       r.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid
  FROM result r JOIN item i USING (item_id) JOIN service s USING (service_id) JOIN claim k USING (claim_id)
 WHERE r.item_id = $1 ORDER BY r.claim_id DESC LIMIT 1000"""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A stored result with its origin."""

    service: str
    item: ItemId
    key: str
    value: Any
    client_id: ClientId
    session_id: SessionId
    bucket_id: BucketId
    claim: ClaimNumber
    at: datetime
    valid: bool


@dataclass(frozen=True, slots=True)
class ItemStory:
    """An item, its state in each of its services, and all its results, newest first."""

    item: ItemId
    key: str
    attributes: dict[str, Any]
    states: list[tuple[str, ItemState]]
    results: list[ResultRow]


async def show(db: Connection, key: str) -> ItemStory | None:
    """Load all that is known of one item; None if its key is not known."""
    row = await db.fetchrow(_FIND_ITEM, key)
    if row is None:
        return None
    states = [(state["name"], state["state"]) for state in await db.fetch(_STATES, row["item_id"])]
    results = [ResultRow(**result) for result in await db.fetch(_RESULTS_OF, row["item_id"])]
    return ItemStory(ItemId(row["item_id"]), row["key"], row["attributes"], states, results)


# Pages by (claim, item): results arrive nearly in that order, and block ranges find those of a claim.  The window
# over claims keeps each page's cost independent of what lies behind it.
WINDOW_CLAIMS = 16
"""Claims to a window: some pages' worth of results, whatever the history."""

# $1 service
# $2 claim of the last row
# $3 item of the last row
# $4 client, or null
# $5 since then, or null
# $6 until then, or null
# $7 rows at most
# $8 claims of a window
_LIST = """
WITH span AS MATERIALIZED (
    SELECT claim_id, client_id, session_id, bucket_id, invalidated_by FROM claim
     WHERE service_id = $1 AND claim_id >= $2 AND settled > 0
       AND ($4::text IS NULL OR client_id = $4)
       AND ($5::timestamptz IS NULL OR ended_at IS NULL OR ended_at >= $5)
       AND ($6::timestamptz IS NULL OR begun_at <= $6)
     ORDER BY claim_id LIMIT $8)
SELECT s.name AS service, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
       r.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid
  FROM span k JOIN result r USING (claim_id) JOIN item i USING (item_id) JOIN service s ON s.service_id = r.service_id
 WHERE r.claim_id BETWEEN (SELECT min(claim_id) FROM span) AND (SELECT max(claim_id) FROM span)
   AND (r.claim_id, r.item_id) > ($2, $3)
   AND ($5::timestamptz IS NULL OR r.at >= $5) AND ($6::timestamptz IS NULL OR r.at < $6)
 ORDER BY r.claim_id, r.item_id LIMIT $7"""

_LAST_CLAIM = """
SELECT max(claim_id), count(*) FROM (
    SELECT claim_id FROM claim
     WHERE service_id = $1 AND claim_id >= $2 AND settled > 0
       AND ($3::text IS NULL OR client_id = $3)
       AND ($4::timestamptz IS NULL OR ended_at IS NULL OR ended_at >= $4)
       AND ($5::timestamptz IS NULL OR begun_at <= $5)
     ORDER BY claim_id LIMIT $6) w"""

# $1 service
# $2 claim of the last row
# $3 item of the last row
# $4 key
# $5 client, or null
# $6 since then, or null
# $7 until then, or null
# $8 rows at most
_LIST_OF_ITEM = """
SELECT s.name AS service, r.item_id AS item, i.key, r.value, k.client_id, k.session_id, k.bucket_id,
       r.claim_id AS claim, r.at, k.invalidated_by IS NULL AS valid
  FROM result r JOIN item i USING (item_id) JOIN service s USING (service_id) JOIN claim k USING (claim_id)
 WHERE i.key = $4 AND r.service_id = $1 AND (r.claim_id, r.item_id) > ($2, $3)
   AND ($5::text IS NULL OR k.client_id = $5)
   AND ($6::timestamptz IS NULL OR r.at >= $6) AND ($7::timestamptz IS NULL OR r.at < $7)
 ORDER BY r.claim_id, r.item_id LIMIT $8"""


async def results(
    db: Connection,
    service: ServiceId,
    after: tuple[int, int],
    limit: int,
    *,
    key: str | None = None,
    client: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[ResultRow]:
    """List results of a service in the order of their claims, from behind `after` (claim, item) on."""
    if key is not None:
        rows = await db.fetch(_LIST_OF_ITEM, service, *after, key, client, since, until, limit)
        return [ResultRow(**row) for row in rows]

    found: list[ResultRow] = []
    start = after
    while len(found) < limit:
        rows = await db.fetch(_LIST, service, *start, client, since, until, limit, WINDOW_CLAIMS)
        found.extend(ResultRow(**row) for row in rows[: limit - len(found)])
        if len(rows) >= limit:
            break

        # A window of claims may hold less than a page; the next one begins behind its last claim.
        last = await db.fetchrow(_LAST_CLAIM, service, start[0], client, since, until, WINDOW_CLAIMS)
        if last["count"] < WINDOW_CLAIMS:
            break
        start = (last["max"] + 1, 0)
    return found
