"""Request `activity.list` and its answer.  protocol.md, "Admin requests" """

from __future__ import annotations

from msgspec import Struct

from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, Name, PageSize, Request, Text, Time


class ListedActivity(Struct):
    """Who did what, to what, and how it ended: `ok` or the code of an error."""

    at: str
    who: str
    action: str
    target: str | None
    outcome: str


class ActivityList(Request, tag="activity.list"):
    """List who did what, newest first."""

    client_id: Name | None = None
    action: Text | None = None
    since: Time | None = None
    until: Time | None = None
    limit: PageSize = 100
    after: After | None = None


class ActivityPage(Ok, kw_only=True):
    """One page of the activity log."""

    rows: list[ListedActivity]
    next: str | None


ANSWERS: dict[type[Request], type[Answer]] = {ActivityList: ActivityPage}
