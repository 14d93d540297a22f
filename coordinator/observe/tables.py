"""The tables that are too long for a snapshot, page by page.

Whoever may watch may ask, so equal pages are looked up once and kept as long as that is cheap, and only a few looks
are under way at a time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs

from coordinator.errors import BadMessage, UnknownBucket
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.intake import bucket_of
from coordinator.flow.rows import result_row
from coordinator.model import ServiceId
from coordinator.observe import rows
from coordinator.observe.cached_query import SMALL_SHARE, CachedQuery
from coordinator.observe.topics import Topics
from coordinator.store import buckets, events, history, items, nodes, people
from coordinator.store.pool import Connection, Database
from coordinator.wire import stats as wire
from coordinator.wire.paging import cursor, moment_of, moment_or_none, number

REMEMBERED = 200
"""Pages that are kept."""

AT_ONCE = 1
"""Looks for pages at the same time: the other connections, and cores of the database, are for the work."""

FILTERS: dict[str, frozenset[str]] = {
    "clients": frozenset({"client_id", "service", "state", "health", "search", "sort"}),
    "services": frozenset({"service", "state"}),
    "buckets": frozenset({"service", "state", "client_id"}),
    "results": frozenset({"service", "key", "client_id", "since", "until"}),
    "events": frozenset({"service", "client_id", "kind"}),
    "nodes": frozenset({"state"}),
    "history": frozenset({"service", "step", "since", "until"}),
    "leaderboard": frozenset({"service", "span"}),
}
"""What each table can be filtered by."""

STATES: dict[str, frozenset[str]] = {
    "clients": frozenset({"active", "inactive", "deactivated", "unregistered"}),
    "services": frozenset({"active", "paused", "revoked"}),
    "buckets": frozenset({"ready", "claimed", "dead"}),
    "nodes": frozenset({"live", "draining", "gone"}),
}

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)

Found = tuple[list[Any], str | None]


class Tables:
    """Answers `get`."""

    def __init__(self, database: Database, catalogue: Catalogue, topics: Topics) -> None:
        self._database = database
        self._catalogue = catalogue
        self._topics = topics
        self._pages: OrderedDict[bytes, CachedQuery[Found]] = OrderedDict()
        self._looks = asyncio.Semaphore(AT_ONCE)
        self._tables: dict[str, Callable[[Connection, wire.Get, wire.Filter], Awaitable[Found]]] = {
            "clients": self._clients,
            "buckets": self._buckets,
            "results": self._results,
            "events": self._events,
            "nodes": self._nodes,
            "history": self._history,
            "leaderboard": self._leaderboard,
        }

    async def page(self, get: wire.Get) -> wire.Page:
        """One page of a table.

        Raises:
            BadMessage: a filter that the table has not, or an `after` that is none of its.
            NotFound: there is no such service.
            Unavailable
        """
        which = get.filter or wire.Filter()
        self._check(get, which)
        if get.topic == "services":
            found = await self._services(get, which)
        else:
            found = await self._kept(get, which).get()
        return wire.Page(topic=get.topic, rows=found[0], next=found[1])

    def _check(self, get: wire.Get, which: wire.Filter) -> None:
        for name in which.__struct_fields__:
            if getattr(which, name) is not None and name not in FILTERS[get.topic]:
                raise BadMessage(
                    f"{get.topic} cannot be filtered by {name}, but by {', '.join(sorted(FILTERS[get.topic]))}.",
                    detail={"path": f"$.filter.{name}"},
                )
        if which.state is not None and which.state not in STATES[get.topic]:
            raise BadMessage(
                f"A state of {get.topic} is one of {', '.join(sorted(STATES[get.topic]))}.",
                detail={"path": "$.filter.state"},
            )
        self._service(which)
        for name in ("since", "until"):
            moment_or_none(getattr(which, name), f"$.filter.{name}")

    def _kept(self, get: wire.Get, which: wire.Filter) -> CachedQuery[Found]:
        key = msgspec.json.encode(structs.replace(get, ref=msgspec.UNSET))
        kept = self._pages.get(key)
        if kept is None:
            look = self._tables[get.topic]
            kept = self._pages[key] = CachedQuery(
                self._database, lambda db: look(db, get, which), share=SMALL_SHARE, gate=self._looks
            )
            if len(self._pages) > REMEMBERED:
                self._pages.popitem(last=False)
        self._pages.move_to_end(key)
        return kept

    def _service(self, which: wire.Filter) -> ServiceId | None:
        if which.service is None:
            return None
        return self._catalogue.named(which.service).service.service_id

    # One table each

    async def _services(self, get: wire.Get, which: wire.Filter) -> Found:
        found = [
            row
            for row in await self._topics.service_rows()
            if (which.state is None or row.state == which.state)
            and (which.service is None or row.service == which.service)
            and (get.after is None or row.service > get.after)
        ]
        page = found[: get.limit]
        return list(page), page[-1].service if len(found) > len(page) else None

    async def _clients(self, db: Connection, get: wire.Get, which: wire.Filter) -> Found:
        after = None
        if get.after is not None:
            client, value = cursor(get.after, 2)
            after = (client, number(value))
        wanted = people.Which(which.state, self._service(which), which.search, which.health, which.client_id)
        found, last = await people.page(db, wanted, which.sort or "client_id", after, get.limit)
        named = None if last is None else f"{last[0]}|{last[1]}"
        return [rows.client_row(row, self._catalogue) for row in found], named

    async def _buckets(self, db: Connection, get: wire.Get, which: wire.Filter) -> Found:
        after = None
        if get.after is not None:
            moment, bucket = cursor(get.after, 2)
            try:
                after = (moment_of(moment, "$.after"), bucket_of(bucket))
            except UnknownBucket:
                raise BadMessage("`after` is the `next` of the page before.", detail={"path": "$.after"}) from None
        found = await buckets.open_page(db, after, get.limit, self._service(which), which.state, which.client_id)
        last = f"{found[-1]['place'].isoformat()}|{found[-1]['bucket_id']}" if len(found) == get.limit else None
        return [rows.bucket_row(row, self._catalogue) for row in found], last

    async def _results(self, db: Connection, get: wire.Get, which: wire.Filter) -> Found:
        service = self._service(which)
        if service is None:
            raise BadMessage("results are of one service.", detail={"path": "$.filter.service"})
        after = (0, 0) if get.after is None else tuple(map(number, cursor(get.after, 2)))
        found = await items.results(
            db,
            service,
            (after[0], after[1]),
            get.limit,
            key=which.key,
            client=which.client_id,
            since=moment_or_none(which.since, "$.filter.since"),
            until=moment_or_none(which.until, "$.filter.until"),
        )
        last = f"{found[-1].claim}|{found[-1].item}" if len(found) == get.limit else None
        return [result_row(row) for row in found], last

    async def _events(self, db: Connection, get: wire.Get, which: wire.Filter) -> Found:
        before = rows.BEYOND if get.after is None else number(get.after)
        found = await events.page(db, before, get.limit, client=which.client_id, service=which.service, kind=which.kind)
        return [rows.event_row(row) for row in found], str(found[-1]["event_id"]) if len(found) == get.limit else None

    async def _nodes(self, db: Connection, get: wire.Get, which: wire.Filter) -> Found:
        before = rows.BEYOND if get.after is None else number(get.after)
        found = await nodes.newest(db, before, get.limit, which.state)
        return [rows.node_row(row) for row in found], str(found[-1]["boot"]) if len(found) == get.limit else None

    async def _history(self, db: Connection, get: wire.Get, which: wire.Filter) -> Found:
        before = (moment_or_none(which.until, "$.filter.until") or LATEST, 0)
        if get.after is not None:
            moment, service = cursor(get.after, 2)
            before = min(before, (moment_of(moment, "$.after"), number(service)))
        since = moment_or_none(which.since, "$.filter.since") or EARLIEST
        found = await history.page(db, which.step or "minute", before, since, get.limit, self._service(which))
        last = f"{found[-1]['at'].isoformat()}|{found[-1]['service_id']}" if len(found) == get.limit else None
        return [
            rows.history_row(row, name)
            for row in found
            if (name := self._catalogue.name_of(row["service_id"])) is not None
        ], last

    async def _leaderboard(self, db: Connection, get: wire.Get, which: wire.Filter) -> Found:
        after, place = None, 0
        if get.after is not None:
            settled, client, before = _three(get.after)
            after, place = (number(settled), client), number(before)
        found = await history.leaders(
            db, get.limit, after, service=self._service(which), ever=(which.span or "day") == "all"
        )
        leaders = [
            wire.LeaderRow(place + n, row["client_id"], row["screen_name"], row["settled"])
            for n, row in enumerate(found, start=1)
        ]
        if len(leaders) < get.limit:
            return list(leaders), None
        return list(leaders), f"{leaders[-1].settled}|{leaders[-1].client_id}|{leaders[-1].place}"


def _three(after: str) -> tuple[str, str, str]:
    settled, client, place = cursor(after, 3)
    return settled, client, place
