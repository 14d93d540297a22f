"""Storing the results of clients, each once.

The check "this claim is current" and the rows are one transaction.  The usual case, many whole submits at once,
is two statements whatever their number: one that locks and checks the bucket rows, and one COPY.  A submit that
the first one passes over (repeat, stale, an item deleted meanwhile, a copy in a second bucket) is settled by
`settle_one`, on its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator.errors import BadResult, Conflict, StaleClaim, UnassignedItems, UnknownBucket
from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, ServiceId
from coordinator.store import claim_lookup, claims
from coordinator.store.claim_lookup import NamedClaim
from coordinator.store.pool import Connection
from coordinator.store.result_copy import copy_results, encode_rows
from coordinator.store.twins import leave_twins

MAX_NAMED = 100
"""Results that an error names."""

PluginStore = Callable[[Connection, Collection[ItemId], datetime], Awaitable[bool]]
"""Stores what a plugin keeps of a submit: of the items that count, as of that time; returns whether it was new."""


@dataclass(frozen=True, slots=True)
class CheckedSubmit:
    """One checked submit.

    `rows` are (item, value as JSON text); `mask` has one '0' or '1' for each item of the bucket, '1' for those
    in `rows`.
    """

    service_id: ServiceId
    bucket_id: BucketId
    claim: ClaimNumber
    client_id: ClientId
    rows: Sequence[tuple[ItemId, str]]
    mask: str
    final: bool
    parts: Sequence[tuple[ItemId, str]] = ()
    """Results that leave their items unsettled; only the plugin stores them."""
    max_parts: int = 0
    """Such results that the whole claim may bring."""
    keep: PluginStore | None = None
    """The plugin's own tables, stored in the same transaction."""
    copied: bytes = field(init=False, repr=False)
    """`rows` as COPY sends them: made ready before the transaction, so that no lock is held meanwhile."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "copied", encode_rows(self.service_id, self.claim, self.rows))


@dataclass(frozen=True, slots=True)
class SubmitOutcome:
    """The answer to a submit: the fields of `stored`."""

    stored: int
    discarded: int
    remaining: int
    closed: bool
    duplicate: bool
    freed: bool = False
    """Items are left and the bucket is ready for others."""
    calmed: bool = False
    """The client had to wait for its give-backs, and need not any more."""
    parts: int = 0
    """Of the stored results, those that left their items unsettled."""

    @property
    def settled(self) -> int:
        """The number of items that the submit has settled."""
        return self.stored - self.parts


# Masks have the length of the bucket.  A final submit that leaves items is not for here: it gives a bucket back.
# Whoever leaves no more than it settles need not wait any longer for what it gave back before.
#
# $1 buckets
# $2 their claims
# $3 who submits
# $4 masks
# $5 which submits are final
# $6 how many items each settles
_SETTLE = """
WITH s AS (
    SELECT bucket_id, claim_id, client_id, mask::varbit AS mask, final, n
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bool[], $6::int[])
        AS s (bucket_id, claim_id, client_id, mask, final, n)),
current AS MATERIALIZED (
    SELECT b.bucket_id, s.client_id, s.mask, s.n, all_settled(b.settled | s.mask) AS whole
      FROM bucket b JOIN s ON s.bucket_id = b.bucket_id
     WHERE b.claim_id = s.claim_id
       AND b.client_id IS NOT DISTINCT FROM s.client_id  -- with =, an index of all that is held might be walked through
       AND NOT b.twins AND bit_count(b.settled & s.mask) = 0
       AND (NOT s.final OR all_settled(b.settled | s.mask))
     ORDER BY b.bucket_id FOR UPDATE OF b),
stored AS (
    UPDATE bucket b
       SET settled = b.settled | c.mask,
           state = CASE WHEN c.whole THEN 'done' WHEN c.n > 0 THEN 'claimed' ELSE b.state END,
           touched_at = CASE WHEN c.whole THEN NULL WHEN c.n > 0 THEN now() ELSE b.touched_at END,
           client_id = CASE WHEN NOT c.whole THEN b.client_id END,
           session_id = CASE WHEN NOT c.whole THEN b.session_id END,
           boot = CASE WHEN NOT c.whole THEN b.boot END,
           kept_until = CASE WHEN NOT c.whole THEN b.kept_until END
      FROM current c WHERE b.bucket_id = c.bucket_id
    RETURNING b.service_id, b.bucket_id, b.claim_id, c.client_id, c.n, items_left(b.settled) AS remaining),
ended AS (
    UPDATE claim c
       SET settled = c.settled + t.n,
           ended_at = CASE WHEN t.remaining = 0 THEN now() END,
           ended = CASE WHEN t.remaining = 0 THEN 'settled' END
      FROM stored t WHERE c.claim_id = t.claim_id
    RETURNING c.service_id, c.claim_id, t.n, t.remaining > 0 OR c.settled > t.n AS partial),
noted AS (
    INSERT INTO new_change (service_id, kind, claim_id, partial)
    SELECT service_id, 'stored', claim_id, partial FROM ended WHERE n > 0),
calm AS MATERIALIZED (
    SELECT m.client_id, m.service_id FROM membership m
     WHERE m.streak > 0
       AND (m.client_id, m.service_id) IN (SELECT client_id, service_id FROM stored WHERE n > 0 AND n >= remaining)
     ORDER BY m.client_id, m.service_id FOR NO KEY UPDATE),
calmed AS (
    UPDATE membership m SET streak = 0, wait_until = NULL
      FROM calm WHERE m.client_id = calm.client_id AND m.service_id = calm.service_id)
SELECT bucket_id, remaining, EXISTS (SELECT FROM calm WHERE calm.client_id = stored.client_id) AS calmed FROM stored"""


async def settle(db: Connection, submits: Sequence[CheckedSubmit]) -> list[SubmitOutcome | None]:
    """Store many submits, of different buckets, within a transaction; None for each that was passed over."""
    rows = await db.fetch(
        _SETTLE,
        [submit.bucket_id for submit in submits],
        [submit.claim for submit in submits],
        [submit.client_id for submit in submits],
        [submit.mask for submit in submits],
        [submit.final for submit in submits],
        [len(submit.rows) for submit in submits],
    )

    stored = {row["bucket_id"]: row for row in rows}
    if rows:
        await copy_results(db, [submit.copied for submit in submits if submit.bucket_id in stored])

    return [
        SubmitOutcome(
            stored=len(submit.rows),
            discarded=0,
            remaining=row["remaining"],
            closed=row["remaining"] == 0,
            duplicate=False,
            calmed=row["calmed"],
        )
        if (row := stored.get(submit.bucket_id))
        else None
        for submit in submits
    ]


_LOCK = """
SELECT b.state, b.claim_id, b.client_id, b.settled::text AS settled, b.twins, now() AS at
  FROM bucket b WHERE b.bucket_id = $1 FOR UPDATE"""

_STORED = """
SELECT item_id, value::text AS value FROM results_of_claim($1, $2)"""

# Whether an item is still in the catalogue, and was not settled through another bucket: then it was never discarded.
_ANY_LEFT = """
SELECT EXISTS (
    SELECT FROM item i
     WHERE i.item_id = ANY ($1::bigint[])
       AND i.item_id NOT IN (SELECT r.item_id FROM results_of_items($1, 0) r JOIN claim k USING (claim_id)
                              WHERE r.service_id = $2 AND k.bucket_id <> $3))"""

_EQUAL = "SELECT bool_and(a::jsonb = b::jsonb) FROM unnest($1::text[], $2::text[]) AS pair (a, b)"

_SETTLE_TWINS = """
UPDATE twin SET settled_by = $3 WHERE service_id = $1 AND item_id = ANY ($2::bigint[]) AND settled_by IS NULL"""

_LOCK_TWINS = """
SELECT item_id, settled_by FROM twin WHERE service_id = $1 AND item_id = ANY ($2::bigint[])
 ORDER BY item_id FOR UPDATE"""

_OTHER_COPIES = """
SELECT b.bucket_id FROM bucket b
 WHERE b.bucket_id IN (SELECT first_id FROM twin WHERE service_id = $1 AND item_id = ANY ($2::bigint[])
                       UNION SELECT second_id FROM twin WHERE service_id = $1 AND item_id = ANY ($2::bigint[]))
   AND b.state = 'ready' ORDER BY b.bucket_id FOR UPDATE SKIP LOCKED"""


_FORGET_TWINS = "DELETE FROM twin WHERE service_id = $1 AND item_id = ANY ($2::bigint[])"

# $1 bucket
# $2 claim
# $3 mask of what is settled by it
# $4 how many results are stored
# $5 client
# $6 service
# $7 how many results leave their items unsettled
# $8 whether something was added
_MOVE = """
WITH after AS (
    SELECT bucket_id, all_settled(settled | $3::text::varbit) AS whole
      FROM bucket WHERE bucket_id = $1),
stored AS (
    UPDATE bucket b
       SET settled = b.settled | $3::text::varbit,
           state = CASE WHEN a.whole THEN 'done' WHEN $8 THEN 'claimed' ELSE b.state END,
           touched_at = CASE WHEN a.whole THEN NULL WHEN $8 THEN now() ELSE b.touched_at END,
           client_id = CASE WHEN NOT a.whole THEN b.client_id END,
           session_id = CASE WHEN NOT a.whole THEN b.session_id END,
           boot = CASE WHEN NOT a.whole THEN b.boot END,
           kept_until = CASE WHEN NOT a.whole THEN b.kept_until END
      FROM after a WHERE b.bucket_id = a.bucket_id
    RETURNING a.whole, items_left(b.settled) AS remaining),
ended AS (
    UPDATE claim c
       SET settled = c.settled + $4::int, parts = c.parts + $7::int,
           ended_at = CASE WHEN t.whole THEN now() END, ended = CASE WHEN t.whole THEN 'settled' END
      FROM stored t WHERE c.claim_id = $2
    RETURNING NOT t.whole OR c.settled > $4::int AS partial),
noted AS (
    INSERT INTO new_change (service_id, kind, claim_id, partial)
    SELECT $6, 'stored', $2, partial FROM ended WHERE $4::int > 0),
calmed AS (
    UPDATE membership m SET streak = 0, wait_until = NULL
      FROM stored t
     WHERE m.client_id = $5 AND m.service_id = $6 AND m.streak > 0 AND $4::int > 0 AND $4::int >= t.remaining
    RETURNING true)
SELECT whole, remaining, EXISTS (SELECT FROM calmed) AS calmed FROM stored"""


async def settle_one(
    db: Connection, submit: CheckedSubmit, recollect_window: float
) -> tuple[SubmitOutcome, list[tuple[ItemId, str]]]:
    """Store one submit by every rule, within a transaction; returns also the rows that were really stored.

    The order of the checks is the protocol's.

    Raises:
        UnknownBucket, NotOwner, StaleClaim, UnassignedItems, BadResult, Conflict: nothing is stored.
    """
    row = await db.fetchrow(_LOCK, submit.bucket_id)
    bucket = await claim_lookup.find_claim(db, submit.bucket_id, submit.claim)
    if row is None or bucket is None:
        raise UnknownBucket("There is no such bucket.")
    await claim_lookup.check_owner(db, bucket, submit.bucket_id, submit.client_id)

    items = [item for item, _ in submit.rows]
    known = {stored["item_id"]: stored["value"] for stored in await db.fetch(_STORED, items, submit.claim)}
    same = await _same(db, [(known[item], value) for item, value in submit.rows if item in known])
    if not (row["claim_id"] == submit.claim and row["client_id"] == submit.client_id):
        return await _answer_ended(db, submit, bucket, known, same=same), []

    given = {item for item, bit in zip(bucket.items, bucket.given, strict=True) if bit == "1"}
    strangers = [item for item, _ in (*submit.rows, *submit.parts) if item not in given]
    if strangers:
        raise UnassignedItems("Items that are not in this bucket.", detail={"items": strangers})
    if not same:
        raise Conflict("Another result is stored for that claim and item.")

    if bucket.parts + len(submit.parts) > submit.max_parts:
        reason = f"one claim takes {submit.max_parts} parts at most"
        named = [{"item": item, "reason": reason, "path": "$.results"} for item, _ in submit.parts[:MAX_NAMED]]
        raise BadResult("The claim has brought as many parts as it may.", detail={"errors": named, "path": "$.results"})

    if submit.final and not (submit.rows or submit.parts):
        return await _give_up(db, submit, recollect_window), []
    return await _store(db, submit, bucket, row, known, recollect_window)


async def _answer_ended(
    db: Connection, submit: CheckedSubmit, bucket: NamedClaim, known: Mapping[ItemId, str], *, same: bool
) -> SubmitOutcome:
    """Answer a submit of a claim that has ended: a repeat is told what was stored.

    Raises:
        StaleClaim: it is no repeat, and some of its items are still to be settled.
        Conflict: another result is stored.
    """
    if not same:
        raise Conflict("Another result is stored for that claim and item.")

    given = {item for item, bit in zip(bucket.items, bucket.given, strict=True) if bit == "1"}
    missing = [item for item, _ in submit.rows if item not in known]
    repeated = bool(submit.rows) and len(known) == len(submit.rows)
    deleted = (
        bool(submit.rows)
        and given.issuperset(missing)
        and not await db.fetchval(_ANY_LEFT, missing, submit.service_id, submit.bucket_id)
    )
    if not (repeated or deleted):
        raise StaleClaim("Your claim of that bucket has ended.")

    left = sum(item in given and bit == "0" for item, bit in zip(bucket.items, bucket.settled, strict=True))
    return SubmitOutcome(0, len(missing), left, closed=True, duplicate=bool(known))


async def _store(
    db: Connection,
    submit: CheckedSubmit,
    bucket: NamedClaim,
    row: Any,
    known: Mapping[ItemId, str],
    recollect_window: float,
) -> tuple[SubmitOutcome, list[tuple[ItemId, str]]]:
    """Store the rows of a submit that count; `row` is the locked bucket, `known` the results stored already."""
    unsettled = {item for item, bit in zip(bucket.items, row["settled"], strict=True) if bit == "0"}
    fresh = [(item, value) for item, value in submit.rows if item not in known and item in unsettled]
    twins = await _lock_twins(db, submit, fresh) if row["twins"] else {}
    kept = [(item, value) for item, value in fresh if twins.get(item) is None]
    parts = [item for item, _ in submit.parts if item in unsettled]

    await copy_results(db, [encode_rows(submit.service_id, submit.claim, kept)])
    added = bool(kept)
    if submit.keep is not None:
        added = await submit.keep(db, {*parts, *(item for item, _ in kept)}, row["at"]) or added

    settled = {item for item, _ in fresh}
    moved = await db.fetchrow(
        _MOVE,
        submit.bucket_id,
        submit.claim,
        "".join("1" if item in settled else "0" for item in bucket.items),
        len(kept),
        submit.client_id,
        submit.service_id,
        len(parts),
        added,
    )
    if row["twins"]:
        await _settle_twins(db, submit, twins, kept)

    freed = submit.final and not moved["whole"]
    if freed:
        await claims.release_claim(db, submit.bucket_id, submit.claim, claims.GIVEN_UP, recollect_window)
    outcome = SubmitOutcome(
        stored=len(kept) + len(parts),
        parts=len(parts),
        discarded=len(submit.rows) - len(known) - len(kept) + len(submit.parts) - len(parts),
        remaining=moved["remaining"],
        closed=moved["whole"] or freed,
        duplicate=bool(submit.rows) and len(known) == len(submit.rows) and not submit.parts,
        freed=freed,
        calmed=moved["calmed"],
    )
    return outcome, kept


async def _give_up(db: Connection, submit: CheckedSubmit, recollect_window: float) -> SubmitOutcome:
    """A final submit without results is a give-back that counts as a failed attempt, and costs what one costs."""
    freed = await claims.release_claim(db, submit.bucket_id, submit.claim, claims.GIVEN_UP, recollect_window)
    return SubmitOutcome(0, 0, freed[0].remaining, closed=True, duplicate=False, freed=True)


async def _same(db: Connection, pairs: Sequence[tuple[str, str]]) -> bool:
    """Tell whether each stored value equals the new one, as JSON (order of fields and white space aside)."""
    if not pairs:
        return True
    return bool(await db.fetchval(_EQUAL, [old for old, _ in pairs], [new for _, new in pairs]))


async def _lock_twins(
    db: Connection, submit: CheckedSubmit, rows: Sequence[tuple[ItemId, str]]
) -> dict[ItemId, ClaimNumber | None]:
    """Lock the items of these rows that stand in a second bucket too; returns the claims that settled them there."""
    found = await db.fetch(_LOCK_TWINS, submit.service_id, [item for item, _ in rows])
    return {row["item_id"]: row["settled_by"] for row in found}


async def _settle_twins(
    db: Connection,
    submit: CheckedSubmit,
    twins: dict[ItemId, ClaimNumber | None],
    kept: Sequence[tuple[ItemId, str]],
) -> None:
    """Tell the other copies: a ready one gives the item up, a claimed one has its result discarded later."""
    over = [item for item, settled_by in twins.items() if settled_by is not None]
    await db.execute(_FORGET_TWINS, submit.service_id, over)
    items = [item for item, _ in kept if item in twins]
    await db.execute(_SETTLE_TWINS, submit.service_id, items, submit.claim)
    ready = [row["bucket_id"] for row in await db.fetch(_OTHER_COPIES, submit.service_id, items)]
    if ready:
        await leave_twins(db, ready, items)
