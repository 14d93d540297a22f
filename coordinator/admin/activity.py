"""The request `activity.list`.  protocol.md, "activity.list" """

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from coordinator.admin import Steps
from coordinator.flow.core import Core
from coordinator.stats.rows import filled, made
from coordinator.store import activity as store
from coordinator.wire.admin import activity as wire
from coordinator.wire.paging import cursor, cursor_text, moment_of, moment_or_none, number

LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
"""Later than all that has been noted."""


class ActivityRequests:
    """Carries out the request `activity.list`."""

    def __init__(self, core: Core) -> None:
        self._database = core.database

    def steps(self) -> Steps:
        """Each request with its method."""
        return {wire.ActivityList: self.list}

    async def list(self, request: wire.ActivityList) -> wire.ActivityPage:
        """List the lines of the log, newest first.

        Raises:
            BadMessage: a time, or `after`, is none.
        """
        until = moment_or_none(request.until, "$.until")
        before = (until or LATEST, 0 if until else 2**62)
        if request.after is not None:
            moment, line = cursor(request.after, 2)
            before = min(before, (moment_of(moment, "$.after"), number(line)))

        async with self._database.connection() as db:
            found = await store.page(
                db,
                before,
                request.limit,
                target=request.client_id,
                action=request.action,
                since=moment_or_none(request.since, "$.since"),
            )

        full = len(found) == request.limit
        last = cursor_text(found[-1]["at"].isoformat(), found[-1]["activity_id"]) if full else None
        return wire.ActivityPage(rows=await made(lambda row: filled(wire.ListedActivity, row), found), next=last)
