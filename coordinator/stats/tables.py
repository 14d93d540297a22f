"""The tables that are too long for a snapshot, page by page.

Everyone who may watch may ask, so equal pages are queried once and kept as long as that is cheap, and one query runs
at a time: the other connections, and cores of the database, are for the work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from msgspec import UNSET, structs

from coordinator.errors import BadMessage, Forbidden, ServerUnavailable, TooSlow, UnknownBucket
from coordinator.flow.core import Core
from coordinator.flow.intake import bucket_of
from coordinator.flow.wait_view import WaitView
from coordinator.model import ClientId, ServiceId
from coordinator.stats import rows
from coordinator.stats.boards import Boards
from coordinator.stats.cached_query import MAX_PAUSE, PAUSE_FACTOR, SHORT_PAUSE_FACTOR, CachedQuery
from coordinator.stats.client_tables import ClientTables
from coordinator.stats.found import Found
from coordinator.stats.item_tables import ItemTables, for_operators
from coordinator.stats.page_turns import PageTurns, Share
from coordinator.stats.progress import ProgressReport
from coordinator.stats.time_tables import TimeTables
from coordinator.stats.topics import Topics
from coordinator.store import buckets, events, nodes, people
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
)

PAGES_KEPT = 200
"""Pages whose answer is kept."""

BYTES_KEPT = 16 * 1024 * 1024
"""Bytes of those answers, as they are sent; the last one is kept, however long."""

MAX_LIMIT = 1000
"""Rows of one page at most, as the type of `limit` says."""

PAGE_DEADLINE = 2.0
"""Seconds that the query of a page may take, for so long others wait for their turn."""

SMALL_PAGE = 64 * 1024
"""Bytes of a page up to which it is sent to whoever asks, while its answer is good."""

SENT_A_SECOND = 64 * 1024 * 1024
"""Bytes of pages that cost as much as a second of queries: the node composes frames of them, and copies those."""

COSTLY_TABLES = frozenset({"ages", "shares", "leaderboard"})
"""Tables whose rows are counted anew from very many."""

TABLE_FILTERS: dict[str, frozenset[str]] = {
    "clients": frozenset({"client_id", "service", "state", "health", "search", "sort", "order", "connected"}),
    "services": frozenset({"service", "state"}),
    "schemas": frozenset({"service"}),
    "items": frozenset({"service", "state", "prefix", "key", "item", "bucket_id"}),
    "buckets": frozenset({"service", "state", "client_id", "bucket_id", "item"}),
    "claims": frozenset({"bucket_id", "item"}),
    "results": frozenset(
        {"service", "key", "item", "client_id", "bucket_id", "value", "since", "until", "sort"},
    ),
    "events": frozenset({"service", "client_id", "kind", "severity", "since", "until"}),
    "nodes": frozenset({"state"}),
    "history": frozenset({"service", "step", "since", "until"}),
    "kinds": frozenset({"service", "step", "since", "until"}),
    "shares": frozenset({"service", "since"}),
    "ages": frozenset({"service"}),
    "neighbours": frozenset({"item"}),
    "leaderboard": frozenset({"service", "span"}),
    "standing": frozenset({"client_id"}),
    "progress": frozenset(),
    "client_hours": frozenset({"client_id", "service"}),
    "outcomes": frozenset({"client_id", "service"}),
}
"""The filters of each table."""

TABLE_STATES: dict[str, frozenset[str]] = {
    "clients": frozenset({"active", "inactive", "deactivated", "unregistered"}),
    "services": frozenset({"active", "paused", "revoked"}),
    "items": frozenset({"waiting", "ready", "claimed", "settled", "quarantined"}),
    "buckets": frozenset({"ready", "claimed", "dead"}),
    "nodes": frozenset({"live", "draining", "gone"}),
}
"""The values of the filter `state`."""


class TablePages:
    """Answers `get`."""

    def __init__(
        self, core: Core, topics: Topics, boards: Boards, progress: ProgressReport, wait_view: WaitView
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._topics = topics
        self._boards = boards
        self._progress = progress
        self._wait_view = wait_view
        self._item_tables = ItemTables(core)
        client_tables = ClientTables(core)
        self._time_tables = TimeTables(core.catalogue)

        self._kept: OrderedDict[tuple[bool, bytes], CachedQuery[Found]] = OrderedDict()
        self._turns = PageTurns()
        self._queries: dict[str, Callable[[Connection, wire.Get, wire.Filter], Awaitable[Found]]] = {
            "clients": self._clients,
            "items": self._item_tables.items,
            "buckets": self._buckets,
            "claims": self._item_tables.claims,
            "results": self._item_tables.results,
            "events": self._events,
            "nodes": self._nodes,
            "history": self._time_tables.history,
            "kinds": self._time_tables.kinds,
            "shares": self._time_tables.shares,
            "ages": self._time_tables.ages,
            "neighbours": self._item_tables.neighbours,
            "leaderboard": self._boards.late_page,
            "client_hours": client_tables.hours,
            "outcomes": client_tables.outcomes,
        }

    async def page(self, get: wire.Get, *, operator: bool, share: Share) -> wire.Page:
        """Return one page of a table, to an operator or an onlooker; its query is charged to that share of the time.

        Raises:
            BadMessage: a filter that the table has not, or an `after` that is none of its.
            Forbidden: onlookers are not told this.
            NotFound: there is no such service.
            RateLimited: too many pages are asked for.
            ServerUnavailable: it takes too long.
            Unavailable
        """
        if for_operators(get) and not operator:
            raise Forbidden(f"Which {get.topic} those are is told to operators only.")
        wanted = get.filter or wire.Filter()
        self._check(get, wanted)

        if get.topic == "services":
            found = await self._services(get, wanted)
        elif get.topic == "schemas":
            found = self._schemas(get, wanted)
        elif get.topic == "progress":
            found = Found.of([await self._progress.get()], None)
        elif get.topic in ("leaderboard", "standing") and (kept := await self._of_boards(get, wanted, share)):
            found = kept
        else:
            found = await self._found(self._kept_query(get, wanted, operator=operator), share)

        return wire.Page(topic=get.topic, rows=found.encoded(get.limit), next=found.next, total=found.total)

    async def _found(self, query: CachedQuery[Found], share: Share) -> Found:
        try:
            if query.fresh and query.last is not None and len(query.last.rows) <= SMALL_PAGE:
                return query.last

            async with self._turns.turn(share):
                found = await query.get()
                self._turns.charge(share, len(found.rows) / SENT_A_SECOND)
                return found
        except TooSlow:
            raise _takes_too_long() from None

    async def _of_boards(self, get: wire.Get, wanted: wire.Filter, share: Share) -> Found | None:
        """Return a page that a board answers; None if it ends behind the places that are kept."""
        answer = self._boards.standing if get.topic == "standing" else self._boards.page
        try:
            async with self._turns.turn(share):
                return await answer(get, wanted)
        except TooSlow:
            raise _takes_too_long() from None

    def _check(self, get: wire.Get, wanted: wire.Filter) -> None:
        table = get.topic
        if get.count and table != "clients":
            raise BadMessage(f"The rows of {table} are not counted, but those of clients.", detail={"path": "$.count"})
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

        if wanted.sort is not None and (wanted.sort == "newest") is not (table == "results"):
            raise BadMessage(f"{table} cannot be sorted by {wanted.sort}.", detail={"path": "$.filter.sort"})

        self._service(wanted)
        for name in ("since", "until"):
            moment_or_none(getattr(wanted, name), f"$.filter.{name}")

    def _kept_query(self, get: wire.Get, wanted: wire.Filter, *, operator: bool) -> CachedQuery[Found]:
        """The query of this page; of all pages, those asked for last are kept."""
        in_words = operator and get.topic == "clients"
        # Ages are costly, and the same for any limit: another limit must not have them counted again.
        limit = MAX_LIMIT if get.topic == "ages" else get.limit
        key = in_words, msgspec.json.encode(structs.replace(get, ref=msgspec.UNSET, limit=limit))
        kept = self._kept.get(key)

        if kept is None:
            query = partial(self._clients, operator=True) if in_words else self._queries[get.topic]
            kept = self._kept[key] = CachedQuery(
                self._database,
                lambda db: query(db, get, wanted),
                pause_factor=PAUSE_FACTOR if get.topic in COSTLY_TABLES else SHORT_PAUSE_FACTOR,
                deadline=PAGE_DEADLINE,
            )
            sizes = [0 if page.last is None else len(page.last.rows) for page in self._kept.values()]
            while len(self._kept) > PAGES_KEPT or (sum(sizes) > BYTES_KEPT and len(self._kept) > 1):
                self._kept.popitem(last=False)
                sizes.pop(0)

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
        return Found.of(page, page[-1].service if len(found) > len(page) else None)

    def _schemas(self, get: wire.Get, wanted: wire.Filter) -> Found:
        after = get.after or ""
        found = sorted(
            (
                rows.service_schemas(entry)
                for entry in self._catalogue.all()
                if wanted.service in (None, entry.service.name) and entry.service.name > after
            ),
            key=lambda row: row.service,
        )
        page = found[: get.limit]
        return Found.of(page, page[-1].service if len(found) > len(page) else None)

    async def _clients(self, db: Connection, get: wire.Get, wanted: wire.Filter, *, operator: bool = False) -> Found:
        after = None
        if get.after is not None:
            client, value = cursor(get.after, 2)
            after = (client, number(value))

        which = people.ClientFilter(
            wanted.state, self._service(wanted), wanted.search, wanted.health, wanted.client_id, wanted.connected
        )
        sort = "client_id" if wanted.sort is None or wanted.sort == "newest" else wanted.sort
        found, last = await people.page(db, which, sort, after, get.limit, wanted.order)
        total = await people.count_matching(db, which) if get.count else UNSET

        waits = await self._wait_view.of(db, [ClientId(row["client_id"]) for row in found])
        page = await rows.made(lambda row: rows.client_row(row, self._catalogue, waits, operator=operator), found)
        return Found.of(page, None if last is None else cursor_text(*last), total)

    async def _buckets(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        if wanted.bucket_id is not None or wanted.item is not None:
            return await self._item_tables.bucket(db, wanted)

        after = None
        if get.after is not None:
            moment, bucket = cursor(get.after, 2)
            try:
                after = (moment_of(moment, "$.after"), bucket_of(bucket))
            except UnknownBucket:
                raise bad_cursor() from None

        found = await buckets.open_page(db, after, get.limit, self._service(wanted), wanted.state, wanted.client_id)

        page = await rows.made(lambda row: rows.bucket_row(row, self._catalogue), found)
        if len(page) < get.limit:
            return Found.of(page, None)
        return Found.of(page, cursor_text(found[-1]["place"].isoformat(), page[-1].bucket_id))

    async def _events(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        before = MAX_ROW_NUMBER if get.after is None else number(get.after)
        which = events.EventFilter(
            wanted.client_id,
            wanted.service,
            [wanted.kind] if isinstance(wanted.kind, str) else wanted.kind,
            wanted.severity,
            moment_or_none(wanted.since, "$.filter.since"),
            moment_or_none(wanted.until, "$.filter.until"),
        )
        found = await events.page(db, before, get.limit, which)
        page = await rows.made(rows.event_row, found)
        return Found.of(page, cursor_text(page[-1].event_id) if len(page) == get.limit else None)

    async def _nodes(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        before = MAX_ROW_NUMBER if get.after is None else number(get.after)
        found = await nodes.newest(db, before, get.limit, wanted.state)
        page = [rows.node_report(row).row for row in found]
        return Found.of(page, cursor_text(page[-1].boot) if len(page) == get.limit else None)


def _takes_too_long() -> ServerUnavailable:
    text = f"This page takes longer than {PAGE_DEADLINE:g} s; with a narrower filter it may not."
    return ServerUnavailable(text, retry_after=MAX_PAUSE, scope="connection")
