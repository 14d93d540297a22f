"""Items out of turn: prioritised, deleted, quarantined, retried.

All of it within a transaction that holds the builder's lock, so that no item is on its way from `waiting` to a bucket
meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from coordinator.model import BucketId, ClaimNumber, ClientId, Freed, ItemId, ServiceId, SessionId
from coordinator.store.items import CatalogueItem
from coordinator.store.pool import Connection
from coordinator.store.twins import leave_twins

_BY_KEYS = """
SELECT item_id, coalesce(canonical, key) AS canonical
  FROM item WHERE coalesce(canonical, key) = ANY ($1::text[]) ORDER BY item_id"""

_BY_IDS = "SELECT item_id AS item, key, attributes FROM item WHERE item_id = ANY ($1::bigint[]) ORDER BY item_id"


async def by_keys(db: Connection, canonical: Sequence[str]) -> dict[str, ItemId]:
    """Find the items of these canonical keys that are in the catalogue; by canonical key, in the order of their ids."""
    return {row["canonical"]: ItemId(row["item_id"]) for row in await db.fetch(_BY_KEYS, list(canonical))}


async def by_ids(db: Connection, ids: Sequence[ItemId]) -> list[CatalogueItem]:
    """Find the items of these ids that are in the catalogue."""
    return [CatalogueItem(**row) for row in await db.fetch(_BY_IDS, list(ids))]


# In lock order: open buckets, then items.  $2 is the service in which they are prioritised, and which they join by it;
# null: they are locked in all services, to be deleted.  What comes of it is seen by the next statement, not by this.
# What is prioritised need not reach the disk before others see it: see `adding._ADD`.
_LOCK = """
WITH opened AS MATERIALIZED (
    SELECT b.bucket_id FROM bucket b
     WHERE b.bucket_id = ANY (ARRAY (SELECT DISTINCT bucket_id FROM open_places($1)))
       AND b.state <> 'done' AND ($2::int IS NULL OR b.service_id = $2)
     ORDER BY b.bucket_id FOR UPDATE),
-- Whoever lets a known item join a service holds a lock that this one waits for.
locked AS MATERIALIZED (
    SELECT item_id FROM item
     WHERE item_id = ANY ($1::bigint[]) AND (SELECT count(*) FROM opened) IS NOT NULL ORDER BY item_id FOR UPDATE)
SELECT ARRAY (SELECT bucket_id FROM opened) AS buckets,
       CASE WHEN $2 IS NOT NULL THEN enrol($2, ARRAY (SELECT item_id FROM locked)) END,
       CASE WHEN $2 IS NOT NULL THEN set_config('synchronous_commit', 'off', true) END
  FROM (SELECT count(*) FROM locked) l"""

# All that is known of these items in one service, a row for each thing, so that no plan compares each with each.  They
# wait no more; of an item that was settled through one of two copies, the other counts again from now on.  Within CASE
# the items are hashed, as in open_places: an array would be gone through for each place of these buckets.
_TAKE = """
WITH forgotten AS (
    DELETE FROM twin WHERE service_id = $1 AND item_id = ANY ($2::bigint[]) AND settled_by IS NOT NULL)
SELECT 'known' AS what, item_id, now() AS since, item_json(item_id, key, attributes) AS fragment,
       NULL::uuid AS bucket_id, NULL AS state, NULL::smallint AS priority
  FROM item WHERE item_id = ANY ($2::bigint[])
UNION ALL
SELECT 'waiting', item_id, since, NULL, NULL, NULL, NULL FROM take_waiting($1, $2)
UNION ALL
SELECT 'quarantined', item_id, NULL, NULL, NULL, NULL, NULL
  FROM quarantine WHERE service_id = $1 AND item_id = ANY ($2::bigint[])
UNION ALL
SELECT 'twin', item_id, NULL, NULL, NULL, NULL, NULL
  FROM twin WHERE service_id = $1 AND item_id = ANY ($2::bigint[]) AND settled_by IS NULL
UNION ALL
SELECT 'place', n.item_id, b.since, NULL, b.bucket_id, b.state, b.priority
  FROM bucket b JOIN bucket_items c USING (bucket_id)
 CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS n (item_id, place)
 WHERE b.bucket_id = ANY ($3::uuid[]) AND b.state <> 'done'
   AND CASE WHEN get_bit(b.settled, n.place::int - 1) = 0 THEN n.item_id IN (SELECT unnest($2::bigint[])) END"""

# Sets the bits of these items in these buckets; one that is empty by that is done, its claim over.
_TAKE_OUT = """
WITH bits AS (
    SELECT c.bucket_id,
           string_agg(CASE WHEN n.item_id IN (SELECT unnest($2::bigint[])) THEN '1' ELSE '0' END,
                      '' ORDER BY n.place)::varbit AS gone
      FROM bucket_items c CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS n (item_id, place)
     WHERE c.bucket_id = ANY ($1::uuid[]) GROUP BY c.bucket_id),
before AS (
    SELECT b.bucket_id, b.client_id, b.session_id, s.gone,
           all_settled(b.settled | s.gone) AS empty
      FROM bucket b JOIN bits s USING (bucket_id) WHERE b.state <> 'done'),
moved AS (
    UPDATE bucket b
       SET settled = b.settled | p.gone,
           state = CASE WHEN p.empty THEN 'done' ELSE b.state END,
           client_id = CASE WHEN NOT p.empty THEN b.client_id END,
           session_id = CASE WHEN NOT p.empty THEN b.session_id END,
           boot = CASE WHEN NOT p.empty THEN b.boot END,
           touched_at = CASE WHEN NOT p.empty THEN b.touched_at END,
           kept_until = CASE WHEN NOT p.empty THEN b.kept_until END,
           split_at = CASE WHEN NOT p.empty THEN b.split_at END
      FROM before p WHERE b.bucket_id = p.bucket_id
    RETURNING b.service_id, b.bucket_id, b.claim_id, p.client_id, p.session_id, p.empty),
ended AS (
    UPDATE claim c SET ended_at = now(), ended = 'settled'
      FROM moved m WHERE m.empty AND m.client_id IS NOT NULL AND c.claim_id = m.claim_id)
SELECT service_id, bucket_id, claim_id, client_id, session_id FROM moved WHERE empty AND client_id IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class PrioritisedItem:
    """An item on its way into an urgent bucket; `copy_of` is the claimed bucket that it stands in too.

    `fragment` is the item as clients see it, in JSON.
    """

    item_id: ItemId
    since: datetime
    rank_at: datetime
    fragment: str
    copy_of: BucketId | None = None


async def take_for_priority(
    db: Connection, service: ServiceId, items: Sequence[ItemId], priority: int, head_start: float
) -> list[PrioritisedItem]:
    """Take items out of wherever they are, to be put into buckets of that priority (`head_start` in seconds).

    Left where they are: those in a ready bucket that is as urgent, those that have a second copy already, and those
    in quarantine.  Settled ones, and ones new to the service, are taken too.  The transaction does not wait for the
    disk.
    """
    opened = await db.fetchval(_LOCK, list(items), service)

    found: defaultdict[str, dict[ItemId, list[Any]]] = defaultdict(dict)
    for row in await db.fetch(_TAKE, service, list(items), opened):
        found[row["what"]].setdefault(ItemId(row["item_id"]), []).append(row)
    places, out = found["place"], []
    urgent: list[PrioritisedItem] = []

    for item in items:
        if item not in found["known"] or item in found["quarantined"] or item in found["twin"]:
            continue

        known = found["known"][item][0]
        since, copy_of = found["waiting"].get(item, [known])[0]["since"], None
        if item in places:
            place = places[item][0]
            if place["state"] == "ready":
                if place["priority"] <= priority:
                    continue
                out.append(item)
            else:
                copy_of = BucketId(place["bucket_id"])
            since = place["since"]

        urgent.append(PrioritisedItem(item, since, since - timedelta(seconds=head_start), known["fragment"], copy_of))

    if out:
        await db.fetch(_TAKE_OUT, list({row["bucket_id"] for item in out for row in places[item]}), out)
    return urgent


_OPEN_AND_FREE = """
SELECT bucket_id FROM bucket
 WHERE bucket_id = ANY (ARRAY (SELECT DISTINCT bucket_id FROM open_places($2))) AND service_id = $1 AND state = 'ready'
 ORDER BY bucket_id FOR UPDATE"""

_TAKE_OUT_OF_QUEUE = "SELECT count(*) FROM take_waiting($1, $2)"


async def take_out_of_queue(db: Connection, service: ServiceId, items: Sequence[ItemId]) -> None:
    """Take items out of the queue of a service, and out of its buckets that nobody holds."""
    ready = [row["bucket_id"] for row in await db.fetch(_OPEN_AND_FREE, service, list(items))]
    if ready:
        await leave_twins(db, ready, items)  # the other copy is claimed, and goes on alone
        await db.fetch(_TAKE_OUT, ready, list(items))
    await db.execute(_TAKE_OUT_OF_QUEUE, service, list(items))


_NOTE_TWINS = """
INSERT INTO twin (service_id, item_id, first_id, second_id)
SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::uuid[])"""

_MARK_TWINS = "UPDATE bucket SET twins = true WHERE bucket_id = ANY ($1::uuid[])"


async def note_twins(
    db: Connection,
    service: ServiceId,
    buckets: Sequence[tuple[BucketId, Sequence[ItemId]]],
    urgent: Sequence[PrioritisedItem],
) -> None:
    """Remember which items of these new buckets stand in a claimed one too."""
    firsts = {item.item_id: item.copy_of for item in urgent if item.copy_of is not None}
    pairs = [(item, firsts[item], bucket) for bucket, items in buckets for item in items if item in firsts]
    if pairs:
        await db.execute(_NOTE_TWINS, service, *([pair[n] for pair in pairs] for n in range(3)))
        both: set[UUID] = {bucket for _, first, second in pairs for bucket in (first, second)}
        await db.execute(_MARK_TWINS, sorted(both))


_LEAVE = """
WITH leaving AS MATERIALIZED (
    SELECT item_block(i) AS block, bit_or(set_bit(0::bit(1024), item_offset(i), 1)) AS members
      FROM unnest($1::bigint[]) AS i GROUP BY 1),
present AS MATERIALIZED (
    SELECT e.service_id, e.block, e.members & ~l.members AS members
      FROM service s CROSS JOIN leaving l JOIN enrolment e ON e.service_id = s.service_id AND e.block = l.block
     ORDER BY e.service_id, e.block FOR NO KEY UPDATE OF e)
UPDATE enrolment e SET members = p.members FROM present p WHERE e.service_id = p.service_id AND e.block = p.block"""

_DELETE = (
    "SELECT count(*) FROM service CROSS JOIN LATERAL take_waiting(service_id, $1)",
    "DELETE FROM quarantine WHERE service_id IN (SELECT service_id FROM service) AND item_id = ANY ($1::bigint[])",
    "DELETE FROM twin WHERE service_id IN (SELECT service_id FROM service) AND item_id = ANY ($1::bigint[])",
    _LEAVE,
    """
    WITH gone AS (
        SELECT service_id, item_id FROM delete_results($1))
    INSERT INTO new_change (service_id, kind, items)
    SELECT service_id, 'deleted', array_agg(DISTINCT item_id) FROM gone GROUP BY service_id""",
    "DELETE FROM item WHERE item_id = ANY ($1::bigint[])",
)


async def delete(db: Connection, items: Sequence[ItemId]) -> list[Freed]:
    """Remove items with everything about them; returns the claimed buckets that this leaves empty, and so ends."""
    ids = list(items)
    opened = await db.fetchval(_LOCK, ids, None)
    ended = await db.fetch(_TAKE_OUT, opened, ids)
    for statement in _DELETE:
        await db.execute(statement, ids)

    return [
        Freed(
            ServiceId(row["service_id"]),
            BucketId(row["bucket_id"]),
            ClaimNumber(row["claim_id"]),
            ClientId(row["client_id"]),
            None if row["session_id"] is None else SessionId(row["session_id"]),
            0,
        )
        for row in ended
    ]


_QUARANTINE = """
INSERT INTO quarantine (service_id, item_id, attempts, bucket_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (service_id, item_id) DO UPDATE
   SET attempts = quarantine.attempts + excluded.attempts, since = now(), bucket_id = excluded.bucket_id"""

_QUARANTINED = """
SELECT q.service_id, s.name AS service, q.item_id AS item, i.key, q.attempts, q.since
  FROM quarantine q JOIN service s USING (service_id) JOIN item i USING (item_id)
 WHERE ($1::int IS NULL OR q.service_id = $1) AND (q.service_id, q.item_id) > ($2, $3)
 ORDER BY q.service_id, q.item_id LIMIT $4"""

_RETRY = """
WITH freed AS (
    DELETE FROM quarantine q USING item i
     WHERE q.service_id = $1 AND q.item_id = i.item_id AND coalesce(i.canonical, i.key) = ANY ($2::text[])
    RETURNING q.item_id, coalesce(i.canonical, i.key) AS canonical),
waits AS MATERIALIZED (SELECT put_waiting($1, ARRAY (SELECT item_id FROM freed), now(), now(), 100))
SELECT canonical FROM freed CROSS JOIN waits"""


async def quarantine(
    db: Connection, service: ServiceId, item: ItemId, attempts: int, bucket: BucketId | None = None
) -> None:
    """Take an item out of circulation until an admin decides; `bucket` is the one in which it failed alone."""
    await db.execute(_QUARANTINE, service, item, attempts, bucket)


async def quarantined(
    db: Connection, service: ServiceId | None, after: tuple[int, int], limit: int
) -> list[dict[str, Any]]:
    """List items that broke clients, from behind `after` (service, item) on."""
    return [dict(row) for row in await db.fetch(_QUARANTINED, service, *after, limit)]


async def retry(db: Connection, service: ServiceId, canonical: Sequence[str]) -> set[str]:
    """Let quarantined items wait again; returns the canonical keys of those that were quarantined."""
    return {row["canonical"] for row in await db.fetch(_RETRY, service, list(canonical))}
