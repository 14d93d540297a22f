"""The tables of items, of their results, claims and neighbours; and the buckets that are found by one of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.errors import BadMessage, UnknownBucket
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.core import Core
from coordinator.flow.intake import bucket_of
from coordinator.keys import canonical
from coordinator.model import BucketId, ItemId, ServiceId
from coordinator.services.follow import graph
from coordinator.stats import rows
from coordinator.stats.found import Found
from coordinator.stats.item_scan import ItemScan, scan
from coordinator.store import buckets, building, claim_history, item_places, items, result_pages
from coordinator.store.pool import Connection
from coordinator.wire import stats as wire
from coordinator.wire.paging import (
    MAX_ROW_NUMBER,
    cursor,
    cursor_text,
    moment_of,
    moment_or_none,
    number,
    two_numbers,
)

MOST_ITEMS_SCANNED = 2_000
"""Items that one page of `items` looks at, where few may be as the filter wants them."""

MOST_NEIGHBOURS = 48
"""Accounts around another that are told: as many as a small drawing can show."""

LONGEST_VALUE = 1024
"""Bytes of the filter `value`, as JSON."""


def for_operators(get: wire.Get) -> bool:
    """Tell whether a page says who works on an item, or with which others it is handed out: onlookers are not told."""
    wanted = get.filter or wire.Filter()
    return (get.topic == "items" and wanted.bucket_id is not None) or (
        get.topic in ("buckets", "claims") and wanted.item is not None
    )


class ItemTables:
    """Finds the pages of `items`, `claims` and `results`."""

    def __init__(self, core: Core) -> None:
        self._catalogue: Catalogue = core.catalogue
        self._key_form = core.key_form

    async def items(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """List items: one, those of a bucket, those that wait or were set aside, or all by their keys.

        Raises:
            BadMessage: an `after` that is none of this list.
        """
        if wanted.item is not None or wanted.key is not None:
            item = wanted.item
            if item is None:
                item = await item_places.id_of_key(db, canonical(wanted.key or "", self._key_form))
            return Found.of(await self._rows(db, [] if item is None else [ItemId(item)]), None)

        after = get.after
        if wanted.bucket_id is not None:
            place = 0 if after is None else number(after)
            ids = await item_places.of_bucket(db, bucket_named(wanted.bucket_id), place, get.limit)
            return Found.of(await self._rows(db, ids), str(place + len(ids)) if len(ids) == get.limit else None)

        service = None if wanted.service is None else self._catalogue.named(wanted.service).service.service_id
        if service is not None and not wanted.prefix and wanted.state == "quarantined":
            ids = await item_places.quarantined(db, service, 0 if after is None else number(after), get.limit)
            return Found.of(await self._rows(db, ids), str(ids[-1]) if len(ids) == get.limit else None)
        if service is not None and not wanted.prefix and wanted.state == "waiting":
            return await self._waiting(db, service, get)

        which = ItemScan(wanted.service, rows.item_state(wanted.state), wanted.prefix or "")
        scanned, last = await scan(db, self._key_form, which, after or "", get.limit, MOST_ITEMS_SCANNED)
        return Found.of(await self._rows(db, [item.item for item, _ in scanned]), last)

    async def _waiting(self, db: Connection, service: ServiceId, get: wire.Get) -> Found:
        after = building.QUEUE_START
        if get.after is not None:
            moment, item = cursor(get.after, 2)
            after = (moment_of(moment, "$.after"), number(item))
        found = await items.waiting(db, service, after, get.limit)

        last = cursor_text(found[-1].rank_at.isoformat(), found[-1].item_id) if len(found) == get.limit else None
        return Found.of(await self._rows(db, [item.item_id for item in found]), last)

    async def _rows(self, db: Connection, ids: Sequence[ItemId]) -> list[wire.ItemRow]:
        return await rows.made(rows.item_row, await item_places.of_ids(db, ids))

    async def claims(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """List claims, the newest first: those of a bucket, or those that had an item and brought no result of it.

        Raises:
            BadMessage: neither bucket nor item, or an `after` that is none of this list.
        """
        before = MAX_ROW_NUMBER if get.after is None else number(get.after)
        if wanted.bucket_id is not None:
            found = await claim_history.of_bucket(db, bucket_named(wanted.bucket_id), before, get.limit)
        elif wanted.item is not None:
            found = await claim_history.without_result(db, ItemId(wanted.item), before, get.limit)
        else:
            raise BadMessage("claims are of one bucket_id or item.", detail={"path": "$.filter"})

        page = [rows.filled(wire.ClaimRow, claim) for claim in found]
        return Found.of(page, str(page[-1].claim) if len(page) == get.limit else None)

    async def results(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """List results of a service, in the order of their claims or the newest first, or those of one item.

        Raises:
            BadMessage: neither service nor item, a value that is too long, or an `after` that is none of this list.
        """
        service = None if wanted.service is None else self._catalogue.named(wanted.service).service.service_id
        if wanted.item is not None:
            before = MAX_ROW_NUMBER if get.after is None else number(get.after)
            of_item = await result_pages.of_item(db, ItemId(wanted.item), service, before, get.limit)
            page = await rows.made(rows.result_row, of_item.rows)
            return Found.of(page, None if of_item.last is None else str(of_item.last[0]))

        if service is None:
            raise BadMessage("results are of one service or item.", detail={"path": "$.filter.service"})
        if wanted.sort == "newest" or wanted.bucket_id is not None or wanted.value is not None:
            return await self._newest(db, service, get, wanted)

        found = await items.results(
            db,
            service,
            two_numbers(get.after),
            get.limit,
            canonical=None if wanted.key is None else canonical(wanted.key, self._key_form),
            client=wanted.client_id,
            since=moment_or_none(wanted.since, "$.filter.since"),
            until=moment_or_none(wanted.until, "$.filter.until"),
        )
        page = await rows.made(rows.result_row, found.rows)
        return Found.of(page, None if found.last is None else cursor_text(*found.last))

    async def _newest(self, db: Connection, service: ServiceId, get: wire.Get, wanted: wire.Filter) -> Found:
        value = None if wanted.value is None else msgspec.json.encode(wanted.value)
        if value is not None and len(value) > LONGEST_VALUE:
            raise BadMessage(f"A value has up to {LONGEST_VALUE:,} bytes.", detail={"path": "$.filter.value"})
        if wanted.key is not None:
            raise BadMessage("With a key, results are not sorted by newest.", detail={"path": "$.filter.key"})

        which = result_pages.NewestFilter(
            service,
            wanted.client_id,
            None if wanted.bucket_id is None else bucket_named(wanted.bucket_id),
            moment_or_none(wanted.since, "$.filter.since"),
            moment_or_none(wanted.until, "$.filter.until"),
            None if value is None else value.decode(),
        )
        after = result_pages.FIRST
        if get.after is not None:
            moment, claim, item = cursor(get.after, 3)
            after = result_pages.Place(moment_of(moment, "$.after"), number(claim), number(item))

        found = await result_pages.newest(db, which, after, get.limit)
        last = found.last
        page = await rows.made(rows.result_row, found.rows)
        return Found.of(page, None if last is None else cursor_text(last.begun_at.isoformat(), last.claim, last.item))

    async def neighbours(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """Find the follow graph around the account of an item.

        Raises:
            BadMessage: no item, or an `after`.
        """
        if wanted.item is None:
            raise BadMessage("neighbours are of one item.", detail={"path": "$.filter.item"})
        if get.after is not None:
            raise BadMessage("neighbours have one page.", detail={"path": "$.after"})
        found = await graph.around(db, ItemId(wanted.item), MOST_NEIGHBOURS)
        if found is None:
            return Found.of([], None)
        neighbours = [rows.filled(wire.Neighbour, tie) for tie in found.ties]
        return Found.of([rows.filled(wire.Neighbourhood, found, item=wanted.item, neighbours=neighbours)], None)

    async def bucket(self, db: Connection, wanted: wire.Filter) -> Found:
        """Find one bucket, open or done, or the open ones that have an item to be settled."""
        if wanted.bucket_id is not None:
            found = await buckets.one(db, bucket_named(wanted.bucket_id))
        else:
            found = await buckets.with_item(db, ItemId(wanted.item or 0))
        return Found.of([rows.bucket_row(row, self._catalogue) for row in found], None)


def bucket_named(name: str) -> BucketId:
    """Read the id of a bucket in a filter.

    Raises:
        BadMessage: it is the id of none.
    """
    try:
        return bucket_of(name)
    except UnknownBucket as failure:
        raise BadMessage(failure.message, detail={"path": "$.filter.bucket_id"}) from None
