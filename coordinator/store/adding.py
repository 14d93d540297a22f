"""Adding items to the catalogue and to services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from coordinator.model import ClaimNumber, ItemId, ServiceId
from coordinator.store.item_copy import NewItem, copy_items
from coordinator.store.pool import Connection

FoundItem = tuple[str, str | None, ItemId]
"""The key of an item, its canonical form where that is another, and the item whose result showed it."""

# New keys get a row and wait in these services; known ones keep their attributes.  In one order of keys, services and
# blocks, so that two of these never wait for each other: within a transaction, no more may join these services.
# Services that are added wait until the items have joined the others (`services.lock_catalogue`).  Others see the items
# before they have reached the disk: a claim of them commits behind this in the same log, and who added them waits for
# it (`Database.flush`).
_ADD = """
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtext('coordinator.catalogue')),
           set_config('synchronous_commit', 'off', true)),
new AS (
    INSERT INTO item (key, canonical, attributes)
    SELECT key, canonical, attributes::jsonb
      FROM locked CROSS JOIN unnest($1::text[], $2::text[], $3::text[]) AS g (key, canonical, attributes)
     ORDER BY coalesce(canonical, key) COLLATE "C"
    ON CONFLICT (coalesce(canonical, key)) DO NOTHING RETURNING item_id, key),
bits AS MATERIALIZED (
    SELECT item_block(item_id) AS block, bit_or(set_bit(0::bit(1024), item_offset(item_id), 1)) AS members
      FROM new GROUP BY 1),
joined AS (
    INSERT INTO enrolment AS e (service_id, block, members)
    SELECT service_id, block, members FROM bits CROSS JOIN unnest($4::int[]) AS s (service_id)
     ORDER BY service_id, block
    ON CONFLICT (service_id, block) DO UPDATE SET members = e.members | excluded.members),
waits AS MATERIALIZED (
    SELECT put_waiting(service_id, ARRAY (SELECT item_id FROM new), now() - make_interval(secs => head_start), now(),
                       $6)
      FROM unnest($4::int[], $5::float8[]) AS s (service_id, head_start) ORDER BY service_id)
SELECT item_id, key FROM new CROSS JOIN (SELECT count(*) FROM waits) w"""

# Known keys are passed over before a new item takes a number: blocks of numbers with few items in them cost as much as
# full ones.
_ADD_FOUND = """
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(hashtext('coordinator.catalogue')))
INSERT INTO item (key, canonical, found_with, found_by)
SELECT key, canonical, found_with, $4
  FROM locked CROSS JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS g (key, canonical, found_with)
 WHERE NOT EXISTS (SELECT FROM item i WHERE coalesce(i.canonical, i.key) = coalesce(g.canonical, g.key) COLLATE "C")
 ORDER BY coalesce(canonical, key) COLLATE "C"
ON CONFLICT (coalesce(canonical, key)) DO NOTHING RETURNING item_id, key"""

# A statement of its own, which sees what another one added meanwhile.  Locked against deletion until the services have
# taken them.
_KNOWN = """
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtext('coordinator.catalogue')),
           set_config('synchronous_commit', 'off', true))
SELECT item_id FROM locked CROSS JOIN item
 WHERE coalesce(canonical, key) = ANY ($1::text[]) ORDER BY item_id FOR KEY SHARE OF item"""

# A known item joins a service where it has no state; it never reopens a settled one.
_JOIN = """
WITH joined AS MATERIALIZED (SELECT enrol($1, $2) AS ids)
SELECT cardinality(ids) AS joined, put_waiting($1, ids, now() - make_interval(secs => $4), now(), $3) FROM joined"""


async def add(
    db: Connection, items: Sequence[NewItem], services: Mapping[ServiceId, float], priority: int
) -> dict[str, ItemId]:
    """Put items into the catalogue and let the new ones wait; returns the ids of those, by key.

    `services` are where they wait, with what the priority is worth there, in seconds.  The items must be different from
    each other.  The transaction does not wait for the disk.
    """
    columns = [[item[n] for item in items] for n in range(3)]
    rows = await db.fetch(_ADD, *columns, list(services), list(services.values()), priority)
    return {row["key"]: ItemId(row["item_id"]) for row in rows}


async def add_found(db: Connection, items: Sequence[FoundItem], claim: ClaimNumber) -> dict[str, ItemId]:
    """Put those of these items into the catalogue that are new, found through that claim; returns their ids, by key.

    They must be different from each other.
    """
    rows = await db.fetch(_ADD_FOUND, *([item[n] for item in items] for n in range(3)), claim)
    return {row["key"]: ItemId(row["item_id"]) for row in rows}


async def known(db: Connection, canonical: Sequence[str]) -> list[ItemId]:
    """Find the items of these canonical keys; nobody deletes them until the transaction ends.

    That waits for no disk.
    """
    return [ItemId(row["item_id"]) for row in await db.fetch(_KNOWN, list(canonical))]


async def join(db: Connection, service: ServiceId, items: Sequence[ItemId], priority: int, head_start: float) -> int:
    """Let items wait in a service where they have no state yet; returns the number of them.

    `head_start` is what the priority is worth, in seconds.
    """
    return int(await db.fetchval(_JOIN, service, list(items), priority, head_start))


# Numbers of items that stand side by side unless somebody else adds some at the same moment.
_RESERVE = """
SELECT array_agg(nextval('item_item_id_seq'))
  FROM (SELECT pg_advisory_xact_lock_shared(hashtext('coordinator.catalogue')),
               set_config('synchronous_commit', 'off', true)) locked
 CROSS JOIN generate_series(1, $1)"""

# $1 service
# $2 first item
# $3 last item
# $4 what the priority is worth, in seconds
# $5 priority
_JOIN_RANGE = """
WITH part AS (
    SELECT block, greatest($2 - item_at(block, 0), 0)::int AS first, least($3 - item_at(block, 0), 1023)::int AS last
      FROM generate_series(item_block($2), item_block($3)) AS block),
joined AS (
    INSERT INTO enrolment AS e (service_id, block, members)
    SELECT $1, block, (~0::bit(1024) << (1023 - last + first)) >> first FROM part ORDER BY block
    ON CONFLICT (service_id, block) DO UPDATE SET members = e.members | excluded.members)
SELECT put_waiting($1, ARRAY (SELECT generate_series($2::bigint, $3)), now() - make_interval(secs => $4), now(), $5)"""


class KeysKnown(Exception):
    """Some of the keys that were believed to be new are known."""


async def add_new(db: Connection, items: Sequence[NewItem]) -> list[ItemId]:
    """Put many items into the catalogue that are believed to be new; returns their ids.

    They come sorted by canonical key, and so do the ids.  Twice as quick as `add`.  It runs within a transaction,
    which does not wait for the disk.

    Raises:
        KeysKnown: some are known; the transaction has failed.
    """
    ids: list[ItemId] = sorted(await db.fetchval(_RESERVE, len(items)))
    try:
        await copy_items(db, ids, items)
    except asyncpg.UniqueViolationError as failure:
        raise KeysKnown from failure
    return ids


async def join_new(
    db: Connection, service: ServiceId, items: Sequence[ItemId], priority: int, head_start: float
) -> None:
    """Let items wait, as `join` does, that are new and sorted."""
    if items[-1] - items[0] == len(items) - 1:
        await db.fetchval(_JOIN_RANGE, service, items[0], items[-1], head_start, priority)
    else:
        await join(db, service, items, priority, head_start)
