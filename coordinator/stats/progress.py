"""The progress of all work, for everybody: computed when somebody asks, and then once for all who do."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from time import monotonic

from coordinator.flow.core import Core
from coordinator.stats.boards import Boards
from coordinator.stats.cached_query import CachedQuery
from coordinator.stats.eta import latest_eta
from coordinator.stats.rows import filled
from coordinator.stats.topics import Topics
from coordinator.store import claim_history
from coordinator.store.pool import Connection
from coordinator.wire.paging import time_text
from coordinator.wire.progress import Contributor, DayLeader, Progress, ProgressOfService
from coordinator.wire.stats import ServiceRow

PROGRESS_SECONDS = 5.0
"""Seconds for which the progress is kept, whoever asks."""

SERVICES_TOLD = 100
"""Services that are told of one by one, those with the most items; the sums are of all."""

PEOPLE_TOLD = 10
"""Volunteers who are named: those who have just contributed, and as many of the day."""


class ProgressReport:
    """Keeps the progress of all work."""

    def __init__(self, core: Core, topics: Topics, boards: Boards) -> None:
        self._state = core.state
        self._catalogue = core.catalogue
        self._topics = topics
        self._boards = boards
        self._contributors = CachedQuery(core.database, self._find_contributors, PROGRESS_SECONDS)
        self._computing = asyncio.Lock()
        self._due = -math.inf
        self._progress: Progress

    async def get(self) -> Progress:
        """Return the progress, at most PROGRESS_SECONDS old.

        Raises:
            Unavailable: the database is away.
        """
        async with self._computing:
            if monotonic() >= self._due:
                self._progress = await self._compute()
                self._due = monotonic() + PROGRESS_SECONDS
            return self._progress

    async def _compute(self) -> Progress:
        overview = await self._topics.overview()
        services = [row for row in await self._topics.service_rows() if row.state != "revoked"]
        board = await self._boards.of("day")
        settled = sum(row.items.settled for row in services)
        total = sum(row.items.total for row in services)

        largest = sorted(services, key=lambda row: -row.items.total)[:SERVICES_TOLD]
        return Progress(
            project=self._state.settings.project,
            at=time_text(datetime.now(UTC)),
            settled=settled,
            total=total,
            percent=percent(settled, total),
            items_per_second=overview.items_per_second,
            eta=latest_eta(services),
            volunteers=overview.clients.active,
            services=[_service(row) for row in largest],
            contributors=await self._contributors.get(),
            leaders=[filled(DayLeader, one) for one in board.leaders if not one.flagged][:PEOPLE_TOLD],
        )

    async def _find_contributors(self, db: Connection) -> list[Contributor]:
        found = await claim_history.contributors(db, PEOPLE_TOLD)
        named = [(one, self._catalogue.name_of(one.service_id)) for one in found]
        return [filled(Contributor, one, service=name) for one, name in named if name is not None]


def percent(settled: int, total: int) -> float:
    """Return how much is done, to a tenth, rounded down: 100 means all."""
    return math.floor(1000 * settled / total) / 10 if total else 0.0


def _service(row: ServiceRow) -> ProgressOfService:
    return filled(
        ProgressOfService,
        row,
        settled=row.items.settled,
        total=row.items.total,
        percent=percent(row.items.settled, row.items.total),
        volunteers=row.demand.active,
    )
