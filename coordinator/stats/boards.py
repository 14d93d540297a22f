"""Leaderboards of a day, a week, a month and of all time, and the place of each volunteer.

A board is read once for all who look, and again when the pause that it costs is over.  The boards of all services are
read together, as they were at one moment: else a volunteer could be the first of today and the sixth of the week that
began today.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from coordinator.flow.core import Core
from coordinator.model import ServiceId
from coordinator.stats import rows
from coordinator.stats.cached_query import CachedQuery
from coordinator.stats.client_tables import one_client
from coordinator.stats.found import Found
from coordinator.store import boards
from coordinator.store.boards import SPANS, Board, Leader, Span
from coordinator.store.pool import Connection
from coordinator.wire import stats as wire
from coordinator.wire.paging import MAX_ROW_NUMBER, cursor, cursor_text, number
from coordinator.wire.stats_rows import StandingRow

LEADERS_KEPT = 1000
"""Places of a board that are kept with it; pages behind them are read one by one."""

BOARDS_KEPT = 16
"""Boards of one service that are kept, those asked for last; with 50,000 volunteers each takes 2 MB."""


class Boards:
    """Finds the pages of `leaderboard` and `standing`."""

    def __init__(self, core: Core) -> None:
        self._catalogue = core.catalogue
        self._database = core.database
        self._gate = asyncio.Lock()
        self._overall = CachedQuery(core.database, _overall_boards)
        self._of_services: OrderedDict[tuple[Span, ServiceId], CachedQuery[Board]] = OrderedDict()

    async def of(self, span: Span, service: ServiceId | None = None) -> Board:
        """Return the board of a span, of one service or of all.

        Raises:
            TooSlow
            Unavailable
        """
        async with self._gate:
            if service is None:
                return (await self._overall.get())[span]
            return await self._of_service(span, service).get()

    def _of_service(self, span: Span, service: ServiceId) -> CachedQuery[Board]:
        """Return the kept board of a service, or keep a new one and drop the one asked for least lately."""
        kept = self._of_services.pop((span, service), None)
        if kept is None:
            kept = CachedQuery(self._database, lambda db: boards.board(db, span, service, LEADERS_KEPT))
        self._of_services[span, service] = kept
        if len(self._of_services) > BOARDS_KEPT:
            self._of_services.popitem(last=False)
        return kept

    async def page(self, get: wire.Get, wanted: wire.Filter) -> Found | None:
        """Return a page of `leaderboard`; None if it ends behind the places that are kept.

        Raises:
            BadMessage: `after` is that of another table.
            Unavailable
        """
        after = _place(get.after)
        board = await self.of(wanted.span or "day", self._service(wanted))
        begin = bisect_right(board.leaders, (-after[0], after[1]), key=lambda one: (-one.settled, one.client_id))

        end = begin + get.limit
        if end > len(board.leaders) < len(board.standings):
            return None
        return _found(board.leaders[begin:end], is_last=end >= len(board.leaders) == len(board.standings))

    async def late_page(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """Read a page of `leaderboard` that ends behind the places that are kept."""
        found = await boards.page(db, wanted.span or "day", self._service(wanted), _place(get.after), get.limit)
        return _found(found, is_last=len(found) < get.limit)

    async def standing(self, get: wire.Get, wanted: wire.Filter) -> Found:
        """Return the rows of `standing`: where one client stands in each span.

        Raises:
            BadMessage: the filter names no client.
            Unavailable
        """
        client = one_client(get, wanted)
        async with self._gate:
            overall = await self._overall.get()
        async with self._database.connection() as db:
            own = await boards.of_client(db, client)
        return Found.of([_standing(span, own[span], board) for span, board in overall.items()], None)

    def _service(self, wanted: wire.Filter) -> ServiceId | None:
        return None if wanted.service is None else self._catalogue.named(wanted.service).service.service_id


async def _overall_boards(db: Connection) -> dict[Span, Board]:
    async with db.transaction(isolation="repeatable_read", readonly=True):
        return {span: await boards.board(db, span, None, LEADERS_KEPT) for span in SPANS}


def _place(after: str | None) -> tuple[int, str]:
    """Return the items settled and the client behind which a page begins."""
    if after is None:
        return MAX_ROW_NUMBER, ""
    settled, client = cursor(after, 2)
    return number(settled), client


def _found(page: Sequence[Leader], *, is_last: bool) -> Found:
    found = [rows.leader_row(leader) for leader in page]
    return Found.of(found, None if is_last or not found else cursor_text(page[-1].settled, page[-1].client_id))


def _standing(span: Span, settled: int, board: Board) -> StandingRow:
    """Return a client's place; what it settled may be newer than the board."""
    place = board.place_of(settled) if settled else None
    return StandingRow(span, place, max(len(board.standings), place or 0), settled, max(board.total, settled))
