"""The tables of time: what was done in each second, minute and hour, what came of it, and how long items wait."""

from __future__ import annotations

from datetime import UTC, datetime

from coordinator.errors import BadMessage
from coordinator.flow.catalogue import Catalogue
from coordinator.stats import rows
from coordinator.stats.found import Found
from coordinator.store import history, statistics
from coordinator.store.pool import Connection
from coordinator.wire import stats as wire
from coordinator.wire.paging import cursor, cursor_text, moment_of, moment_or_none, number

BEFORE_ALL_TIMES = datetime.min.replace(tzinfo=UTC)
AFTER_ALL_TIMES = datetime.max.replace(tzinfo=UTC)

AGES = (60, 600, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 30 * 86_400)
"""Seconds at which an age of what waits begins, but for the first."""


class TimeTables:
    """Finds the pages of `history`, `kinds`, `shares` and `ages`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def history(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """List what was done in each second, minute or hour, newest first.

        Raises:
            BadMessage: an `after` that is none of this list.
        """
        before = (moment_or_none(wanted.until, "$.filter.until") or AFTER_ALL_TIMES, 0)
        if get.after is not None:
            moment, service = cursor(get.after, 2)
            before = min(before, (moment_of(moment, "$.after"), number(service)))
        since = moment_or_none(wanted.since, "$.filter.since") or BEFORE_ALL_TIMES
        of_service = None if wanted.service is None else self._catalogue.named(wanted.service).service.service_id

        found = await history.page(db, wanted.step or "minute", before, since, get.limit, of_service)

        page = [
            rows.history_row(row, name)
            for row in found
            if (name := self._catalogue.name_of(row["service_id"])) is not None
        ]
        if len(found) < get.limit:
            return Found.of(page, None)
        return Found.of(page, cursor_text(found[-1]["at"].isoformat(), found[-1]["service_id"]))

    async def kinds(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """List how many results of each kind came in each minute or hour of a service, newest first.

        Raises:
            BadMessage: no service, a step that is not kept, or an `after` that is none of this list.
        """
        if wanted.service is None:
            raise BadMessage("kinds are of one service.", detail={"path": "$.filter.service"})
        if wanted.step == "second":
            raise BadMessage("The step of kinds is minute or hour.", detail={"path": "$.filter.step"})

        before = (moment_or_none(wanted.until, "$.filter.until") or AFTER_ALL_TIMES, "")
        if get.after is not None:
            label, moment = cursor(get.after, 2)
            before = min(before, (moment_of(moment, "$.after"), label))
        since = moment_or_none(wanted.since, "$.filter.since") or BEFORE_ALL_TIMES
        service = self._catalogue.named(wanted.service).service.service_id

        found = await history.kinds(db, service, wanted.step or "minute", since, before, get.limit)
        last = cursor_text(found[-1]["label"], found[-1]["at"].isoformat()) if len(found) == get.limit else None
        return Found.of([rows.filled(wire.KindRow, row) for row in found], last)

    async def shares(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """Count the results of each kind that came since a time, of one service or of all, by whole hours.

        Raises:
            BadMessage: an `after` that is none of this list.
        """
        since = moment_or_none(wanted.since, "$.filter.since") or BEFORE_ALL_TIMES
        after = (0, "")
        if get.after is not None:
            last, label = cursor(get.after, 2)
            after = (number(last), label)
        of_service = None if wanted.service is None else self._catalogue.named(wanted.service).service.service_id

        found = await history.shares(db, of_service, since, after, get.limit)
        page = [
            rows.filled(wire.ShareRow, row, service=name)
            for row in found
            if (name := self._catalogue.name_of(row["service_id"])) is not None
        ]
        if len(found) < get.limit:
            return Found.of(page, None)
        return Found.of(page, cursor_text(found[-1]["service_id"], found[-1]["label"]))

    async def ages(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """Count what waits in a service by how long it has waited; all of it, whatever the limit.

        Raises:
            BadMessage: no service, or an `after`.
        """
        if wanted.service is None:
            raise BadMessage("ages are of one service.", detail={"path": "$.filter.service"})
        if get.after is not None:
            raise BadMessage("ages have one page.", detail={"path": "$.after"})
        counted = await statistics.ages(db, self._catalogue.named(wanted.service).service.service_id, AGES)
        ends = (*AGES, None)
        return Found.of([wire.AgeRow(*row) for row in zip((0, *AGES), ends, counted, strict=True)], None)
