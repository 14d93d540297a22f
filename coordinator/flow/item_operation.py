"""What admins do with items, one step a request.  protocol.md, "Admin requests" """

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from coordinator.errors import NotFound
from coordinator.flow.bucket_builder import BucketBuilder, frame, head_start, new_bucket_id, shuffled_parts
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.release import Releases
from coordinator.flow.rows import (
    Fields,
    cursor,
    moment_of,
    number,
    result_row,
    time_text,
)
from coordinator.model import ItemId, ServiceId
from coordinator.services import Item
from coordinator.store import (
    building,
    item_changes,
    items,
)
from coordinator.store.pool import Connection
from coordinator.wire import admin as wire

MAX_ATTRIBUTES = 4096
"""Bytes that the attributes of one item take as JSON."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class _Good:
    """An item of `item.add` that passed."""

    key: str
    attributes: dict[str, Any]


class ItemOperation:
    """The steps behind the requests `item.…`."""

    def __init__(
        self, core: Core, grant: Grant, builder: BucketBuilder, releases: Releases, plugin_runner: PluginRunner
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._grant = grant
        self._builder = builder
        self._releases = releases
        self._signals = core.signals
        self._plugin_runner = plugin_runner

    async def item_add(self, request: wire.ItemAdd) -> Fields:
        """Add items; good ones are stored, bad ones are named."""
        good: dict[str, _Good] = {}
        refused: list[wire.Refusal] = []
        for index, given in enumerate(request.items):
            try:
                one = _read_item(given)
            except ValueError as reason:
                key = given.get("key") if isinstance(given, dict) else None
                refused.append(wire.Refusal(index, key if isinstance(key, str) else None, str(reason)))
            else:
                good.setdefault(one.key, one)
        pairs = [(one.key, msgspec.json.encode(one.attributes).decode()) for one in good.values()]
        new, known, joined = await self._add(request, pairs)
        for service in joined:
            if request.priority < 100:
                self._builder.forget(service)
                await self._builder.make(self._catalogue.by_id(service), wanted=False, patient=True)
            self._signals.work(service, waiting=request.priority >= 100)
        await self._grant.served(joined)
        if good:  # known ones may have become so just now, and not be on disk
            await self._database.flush()
        return {"added": new, "known": known, "refused": refused}

    async def _add(self, request: wire.ItemAdd, pairs: list[tuple[str, str]]) -> tuple[int, int, set[ServiceId]]:
        """Returns how many are new and known, and where any of them wait now.

        All in one transaction if a plugin is asked, or the catalogue which services there are.  Else new items take
        one statement, and known ones a transaction behind it.
        """
        entries, named = self._entries(request.services), request.services is not None
        one_transaction = not named or any(entry.plugin.selects for entry in entries)
        waits: dict[ServiceId, float] = {}
        if named:
            waits = {one.service.service_id: _head_start(request, one) for one in entries if not one.plugin.selects}
        async with AsyncExitStack() as stack:
            db = await stack.enter_async_context(self._database.connection())
            if one_transaction:
                await stack.enter_async_context(db.transaction())
            new = await items.add(db, pairs, waits, request.priority)
            joined = set(waits) if new else set()
            if not one_transaction and len(new) == len(pairs):
                return len(new), 0, joined
            try:
                if not one_transaction:
                    await stack.enter_async_context(db.transaction())
                have = await items.known(db, [key for key, _ in pairs])
                if not named:  # no service is added now; which of them does this node not know yet?
                    await self._catalogue.load(db)
                    entries = self._entries(None)
                added = set(new)
                old = [item for item in have if item not in added]
                for entry in sorted(entries, key=lambda one: one.service.service_id):
                    service, start = entry.service.service_id, _head_start(request, entry)
                    chosen = old if service in waits else await self._chosen(db, entry, have)
                    if chosen and await items.join(db, service, chosen, request.priority, start):
                        joined.add(service)
            except BaseException:
                for service in joined:  # what is new waits there, whatever becomes of the rest
                    self._signals.work(service, waiting=True)
                raise
        return len(new), len(old), joined

    def _entries(self, names: Sequence[str] | None) -> list[Entry]:
        if names is None:
            return [entry for entry in self._catalogue.all() if entry.service.state == "active"]
        return [self._catalogue.living(name) for name in dict.fromkeys(names)]

    async def _chosen(self, db: Connection, entry: Entry, ids: list[ItemId]) -> list[ItemId]:
        """Those that concern the service, by the catalogue's attributes."""
        if not entry.plugin.selects:
            return ids
        found = await item_changes.by_ids(db, ids)
        return await self._plugin_runner.select(entry, [Item(one.item, one.key, one.attributes) for one in found])

    async def item_prioritize(self, request: wire.ItemPrioritize) -> Fields:
        """Put items into buckets at once, ahead of those of higher numbers."""
        entry = self._catalogue.named(request.service)
        settings, service = entry.service.settings, entry.service.service_id
        async with self._database.transaction() as db:
            await building.lock(db, [service])
            found = await item_changes.by_keys(db, request.keys)
            start = head_start(request.priority, settings.max_head_start)
            taken = await item_changes.take_for_priority(
                db, service, [one.item for one in found], request.priority, start
            )
            urgent = [
                building.NewBucket(
                    new_bucket_id(),
                    service,
                    min(one.rank_at for one in part),
                    min(one.since for one in part),
                    request.priority,
                    [one.item_id for one in part],
                    frame(one.fragment for one in part),
                )
                for part in shuffled_parts(taken, settings.bucket_size)
            ]
            if urgent:
                await building.put_buckets(db, urgent)
                await item_changes.note_twins(db, service, [(one.bucket_id, one.items) for one in urgent], taken)
        known = {one.key for one in found}
        self._signals.work(service)
        await self._grant.served([service])
        await self._database.flush()
        return {
            "prioritized": len(found),
            "unknown": [key for key in dict.fromkeys(request.keys) if key not in known],
        }

    async def item_delete(self, request: wire.ItemDelete) -> Fields:
        """Remove items, their results and their places in open buckets."""
        services = [entry.service.service_id for entry in self._catalogue.all()]
        async with self._database.transaction() as db:
            await building.lock(db, services)
            found = await item_changes.by_keys(db, request.keys)
            ended = await item_changes.delete(db, [one.item for one in found])
            # After it, since it has waited for the submits that were under way.
            for entry in self._catalogue.all():
                await self._plugin_runner.forget(entry, db, [one.item for one in found])
        known = {one.key for one in found}
        self._releases.tell_lost(ended, "done")
        return {
            "deleted": len(found),
            "unknown": [key for key in dict.fromkeys(request.keys) if key not in known],
        }

    async def item_waiting(self, request: wire.ItemWaiting) -> Fields:
        """Items that are not in a bucket, in rank order."""
        entry = self._catalogue.named(request.service)
        after = building.QUEUE_START
        if request.after is not None:
            moment, item = cursor(request.after, 2)
            after = (moment_of(moment, "$.after"), number(item))
        async with self._database.connection() as db:
            found = await items.waiting(db, entry.service.service_id, after, request.limit)
        rows = [
            {
                "service": request.service,
                "item": one.item_id,
                "key": one.key,
                "priority": one.priority,
                "since": time_text(one.since),
            }
            for one in found
        ]
        last = f"{found[-1].rank_at.isoformat()}|{found[-1].item_id}" if len(found) == request.limit else None
        return {"rows": rows, "next": last}

    async def item_show(self, request: wire.ItemShow) -> Fields:
        """One item in every service, with the origin of each result."""
        async with self._database.connection() as db:
            story = await items.show(db, request.key)
        if story is None:
            raise NotFound(f"There is no item {request.key!r}.")
        return {
            "item": story.item,
            "key": story.key,
            "attributes": story.attributes,
            "services": [
                {
                    "service": service,
                    "state": state,
                    "results": [result_row(row) for row in story.results if row.service == service],
                }
                for service, state in story.states
            ],
        }

    async def item_quarantined(self, request: wire.ItemQuarantined) -> Fields:
        """Items that broke clients."""
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        after = (0, 0) if request.after is None else tuple(map(number, cursor(request.after, 2)))
        async with self._database.connection() as db:
            rows = await item_changes.quarantined(db, service, (after[0], after[1]), request.limit)
        full = len(rows) == request.limit
        last = f"{rows[-1]['service_id']}|{rows[-1]['item']}" if full else None
        return {
            "rows": [
                {**{k: v for k, v in row.items() if k != "service_id"}, "since": time_text(row["since"])}
                for row in rows
            ],
            "next": last,
        }

    async def item_retry(self, request: wire.ItemRetry) -> Fields:
        """Let quarantined items wait again."""
        entry = self._catalogue.named(request.service)
        async with self._database.transaction() as db:
            await building.lock(db, [entry.service.service_id])
            retried = await item_changes.retry(db, entry.service.service_id, request.keys)
        self._signals.work(entry.service.service_id)
        return {
            "retried": len(retried),
            "unknown": [key for key in dict.fromkeys(request.keys) if key not in retried],
        }


def _head_start(request: wire.ItemAdd, entry: Entry) -> float:
    return head_start(request.priority, entry.service.settings.max_head_start)


def _read_item(given: object) -> _Good:
    """Raises: ValueError, with what was expected."""
    if not isinstance(given, dict):
        raise ValueError("an item is an object with a key")  # noqa: TRY004 - one kind of refusal for all
    key = given.get("key")
    if not isinstance(key, str) or not 1 <= len(key) <= 256:
        raise ValueError("key: a string of 1 to 256 characters was expected")
    if _CONTROL.search(key):
        raise ValueError("key: control characters are refused")
    if "item" in given:
        raise ValueError("item: that number is given by the server")
    attributes = {name: value for name, value in given.items() if name != "key"}
    _refuse_numbers(attributes)
    if len(msgspec.json.encode(attributes)) > MAX_ATTRIBUTES:
        raise ValueError(f"the attributes take more than {MAX_ATTRIBUTES} bytes")
    return _Good(key, attributes)


def _refuse_numbers(value: object) -> None:
    """Numbers that not every JSON reader can hold, and that Postgres writes out in hundreds of digits.

    Raises: ValueError
    """
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
        elif isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("a whole number takes more than 64 bits")
        elif isinstance(one, float) and one and not 1e-15 <= abs(one) <= 1e15:
            raise ValueError("a number beyond 1e15 or below 1e-15")
