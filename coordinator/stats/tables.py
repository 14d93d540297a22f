"""The tables that are too long for a snapshot, page by page.

Everyone who may watch may ask, so equal pages are queried once and kept as long as that is cheap, and only a few
queries run at a time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from msgspec import Struct, structs

from coordinator.errors import BadMessage, UnknownBucket
from coordinator.flow.core import Core
from coordinator.flow.intake import bucket_of
from coordinator.model import ServiceId
from coordinator.stats import rows
from coordinator.stats.cached_query import SHORT_PAUSE_FACTOR, CachedQuery
from coordinator.stats.topics import Topics
from coordinator.store import buckets, events, history, items, nodes, people
from coordinator.store.pool import Connection
from coordinator.wire import stats as wire
from coordinator.wire.paging import (
    MAX_ROW_NUMBER,
    bad_cursor,
    cursor,
    cursor_text,
    moment_of,
    moment_or_none,
    number,
    two_numbers,
)

PAGES_KEPT = 200
"""Pages whose answer is kept."""

PAGES_AT_ONCE = 1
"""Pages queried at the same time: the other connections, and cores of the database, are for the work."""

TABLE_FILTERS: dict[str, frozenset[str]] = {
    "clients": frozenset({"client_id", "service", "state", "health", "search", "sort"}),
    "services": frozenset({"service", "state"}),
    "buckets": frozenset({"service", "state", "client_id"}),
    "results": frozenset({"service", "key", "client_id", "since", "until"}),
    "events": frozenset({"service", "client_id", "kind"}),
    "nodes": frozenset({"state"}),
    "history": frozenset({"service", "step", "since", "until"}),
    "leaderboard": frozenset({"service", "span"}),
}
"""The filters of each table."""

TABLE_STATES: dict[str, frozenset[str]] = {
    "clients": frozenset({"active", "inactive", "deactivated", "unregistered"}),
    "services": frozenset({"active", "paused", "revoked"}),
    "buckets": frozenset({"ready", "claimed", "dead"}),
    "nodes": frozenset({"live", "draining", "gone"}),
}
"""The values of the filter `state`."""

BEFORE_ALL_TIMES = datetime.min.replace(tzinfo=UTC)
AFTER_ALL_TIMES = datetime.max.replace(tzinfo=UTC)


class Found(NamedTuple):
    """Rows of one page; `next` is where the following one begins, None at the end."""

    rows: Sequence[Struct]
    next: str | None


class TablePages:
    """Answers `get`."""

    def __init__(self, core: Core, topics: Topics) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._topics = topics
        self._kept: OrderedDict[bytes, CachedQuery[Found]] = OrderedDict()
        self._gate = asyncio.Semaphore(PAGES_AT_ONCE)
        self._queries: dict[str, Callable[[Connection, wire.Get, wire.Filter], Awaitable[Found]]] = {
            "clients": self._clients,
            "buckets": self._buckets,
            "results": self._results,
            "events": self._events,
            "nodes": self._nodes,
            "history": self._history,
            "leaderboard": self._leaderboard,
        }

    async def page(self, get: wire.Get) -> wire.Page:
        """Return one page of a table.

        Raises:
            BadMessage: a filter that the table has not, or an `after` that is none of its.
            NotFound: there is no such service.
            Unavailable
        """
        wanted = get.filter or wire.Filter()
        self._check(get.topic, wanted)
        if get.topic == "services":
            found = await self._services(get, wanted)
        else:
            found = await self._kept_query(get, wanted).get()
        return wire.Page(topic=get.topic, rows=list(found.rows), next=found.next)

    def _check(self, table: str, wanted: wire.Filter) -> None:
        for name in wanted.__struct_fields__:
            if getattr(wanted, name) is not None and name not in TABLE_FILTERS[table]:
                raise BadMessage(
                    f"{table} cannot be filtered by {name}, but by {', '.join(sorted(TABLE_FILTERS[table]))}.",
                    detail={"path": f"$.filter.{name}"},
                )

        if wanted.state is not None and wanted.state not in TABLE_STATES[table]:
            raise BadMessage(
                f"A state of {table} is one of {', '.join(sorted(TABLE_STATES[table]))}.",
                detail={"path": "$.filter.state"},
            )

        self._service(wanted)
        for name in ("since", "until"):
            moment_or_none(getattr(wanted, name), f"$.filter.{name}")

    def _kept_query(self, get: wire.Get, wanted: wire.Filter) -> CachedQuery[Found]:
        """The query of this page; of all pages, those asked for last are kept."""
        key = msgspec.json.encode(structs.replace(get, ref=msgspec.UNSET))
        kept = self._kept.get(key)

        if kept is None:
            query = self._queries[get.topic]
            kept = self._kept[key] = CachedQuery(
                self._database, lambda db: query(db, get, wanted), pause_factor=SHORT_PAUSE_FACTOR, gate=self._gate
            )
            if len(self._kept) > PAGES_KEPT:
                self._kept.popitem(last=False)

        self._kept.move_to_end(key)
        return kept

    def _service(self, wanted: wire.Filter) -> ServiceId | None:
        if wanted.service is None:
            return None
        return self._catalogue.named(wanted.service).service.service_id

    # One table each

    async def _services(self, get: wire.Get, wanted: wire.Filter) -> Found:
        found = [
            row
            for row in await self._topics.service_rows()
            if (wanted.state is None or row.state == wanted.state)
            and (wanted.service is None or row.service == wanted.service)
            and (get.after is None or row.service > get.after)
        ]
        page = found[: get.limit]
        return Found(page, page[-1].service if len(found) > len(page) else None)

    async def _clients(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        after = None
        if get.after is not None:
            client, value = cursor(get.after, 2)
            after = (client, number(value))

        which = people.ClientFilter(wanted.state, self._service(wanted), wanted.search, wanted.health, wanted.client_id)
        found, last = await people.page(db, which, wanted.sort or "client_id", after, get.limit)

        page = [rows.client_row(row, self._catalogue) for row in found]
        return Found(page, None if last is None else cursor_text(*last))

    async def _buckets(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        after = None
        if get.after is not None:
            moment, bucket = cursor(get.after, 2)
            try:
                after = (moment_of(moment, "$.after"), bucket_of(bucket))
            except UnknownBucket:
                raise bad_cursor() from None

        found = await buckets.open_page(db, after, get.limit, self._service(wanted), wanted.state, wanted.client_id)

        page = [rows.bucket_row(row, self._catalogue) for row in found]
        if len(page) < get.limit:
            return Found(page, None)
        return Found(page, cursor_text(found[-1]["place"].isoformat(), page[-1].bucket_id))

    async def _results(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        service = self._service(wanted)
        if service is None:
            raise BadMessage("results are of one service.", detail={"path": "$.filter.service"})

        found = await items.results(
            db,
            service,
            two_numbers(get.after),
            get.limit,
            key=wanted.key,
            client=wanted.client_id,
            since=moment_or_none(wanted.since, "$.filter.since"),
            until=moment_or_none(wanted.until, "$.filter.until"),
        )

        page = [rows.result_row(row) for row in found]
        return Found(page, cursor_text(page[-1].claim, page[-1].item) if len(page) == get.limit else None)

    async def _events(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        before = MAX_ROW_NUMBER if get.after is None else number(get.after)
        found = await events.page(
            db, before, get.limit, client=wanted.client_id, service=wanted.service, kind=wanted.kind
        )
        page = [rows.event_row(row) for row in found]
        return Found(page, cursor_text(page[-1].event_id) if len(page) == get.limit else None)

    async def _nodes(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        before = MAX_ROW_NUMBER if get.after is None else number(get.after)
        found = await nodes.newest(db, before, get.limit, wanted.state)
        page = [rows.node_report(row).row for row in found]
        return Found(page, cursor_text(page[-1].boot) if len(page) == get.limit else None)

    async def _history(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        before = (moment_or_none(wanted.until, "$.filter.until") or AFTER_ALL_TIMES, 0)
        if get.after is not None:
            moment, service = cursor(get.after, 2)
            before = min(before, (moment_of(moment, "$.after"), number(service)))
        since = moment_or_none(wanted.since, "$.filter.since") or BEFORE_ALL_TIMES

        found = await history.page(db, wanted.step or "minute", before, since, get.limit, self._service(wanted))

        page = [
            rows.history_row(row, name)
            for row in found
            if (name := self._catalogue.name_of(row["service_id"])) is not None
        ]
        if len(found) < get.limit:
            return Found(page, None)
        return Found(page, cursor_text(found[-1]["at"].isoformat(), found[-1]["service_id"]))

    async def _leaderboard(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        after, place = None, 0
        if get.after is not None:
            settled, client, last = cursor(get.after, 3)
            after, place = (number(settled), client), number(last)

        service, ever = self._service(wanted), wanted.span == "all"
        found = await history.leaders(db, get.limit, after, service=service, ever=ever)

        page = [rows.leader_row(row, place) for place, row in enumerate(found, start=place + 1)]
        if len(page) < get.limit:
            return Found(page, None)
        return Found(page, cursor_text(page[-1].settled, page[-1].client_id, page[-1].place))
