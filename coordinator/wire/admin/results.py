"""Requests `result.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, ListedResult, Name, PageSize, Request, Time


class ResultList(Request, tag="result.list"):
    """List the results of a service with their origin, in the order of their claims."""

    service: Name
    key: str | None = None
    client_id: Name | None = None
    since: Time | None = None
    until: Time | None = None
    limit: PageSize = 100
    after: After | None = None


class ResultPage(Ok, kw_only=True):
    """One page of results."""

    rows: list[ListedResult]
    next: str | None


class ResultExport(Request, tag="result.export"):
    """Export all results of a service, page by page; whoever asks writes them in that `format`."""

    service: Name
    format: Literal["jsonl", "csv"]
    attributes: bool = False
    limit: Annotated[int, Meta(ge=1, le=20_000)] = 1000
    after: After | None = None


class ResultExportPage(Ok, kw_only=True):
    """One page of results, as the database wrote them."""

    rows: Raw
    next: str | None


class ChangedResult(Struct):
    """A result that was stored, invalidated or reinstated, as it is now; of one that was deleted only its item."""

    change: Literal["stored", "invalidated", "reinstated", "deleted"]
    service: str
    item: int
    at: str
    key: str | UnsetType = UNSET
    value: Any = UNSET
    client_id: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    bucket_id: str | UnsetType = UNSET
    claim: int | UnsetType = UNSET
    valid: bool | UnsetType = UNSET


class ResultChanges(Request, tag="result.changes"):
    """Tell what became of the results of a service since a page before, in the order in which it took effect."""

    service: Name
    limit: Annotated[int, Meta(ge=1, le=20_000)] = 1000
    after: After | None = None


class ResultChangesPage(Ok, kw_only=True):
    """One page of changes, as the database wrote them; `more`: there are more already."""

    rows: Raw
    next: str
    more: bool


class ResultInvalidate(Request, tag="result.invalidate"):
    """Take back all results that came through some claims."""

    dry_run: bool
    requeue: bool
    client_id: Name | None = None
    service: Name | None = None
    since: Time | None = None
    until: Time | None = None


class ResultsInvalidated(Ok, kw_only=True):
    """How many results were taken back; without an id when the run was dry."""

    count: int
    invalidation_id: int | None


class ListedInvalidation(Struct):
    """A time that results were taken back, and of what: null is any.  `reinstated_at`: since when they count again."""

    invalidation_id: int
    at: str
    client_id: str | None
    service: str | None
    since: str | None
    until: str | None
    claims: int
    results: int
    reinstated_at: str | None


class ResultInvalidations(Request, tag="result.invalidations"):
    """List the times that results were taken back, oldest first."""

    limit: PageSize = 100
    after: After | None = None


class InvalidationPage(Ok, kw_only=True):
    """One page of invalidations."""

    rows: list[ListedInvalidation]
    next: str | None


class ResultReinstate(Request, tag="result.reinstate"):
    """Undo `result.invalidate`."""

    invalidation_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class ResultsReinstated(Ok, kw_only=True):
    """How many results count again."""

    count: int


ANSWERS: dict[type[Request], type[Answer]] = {
    ResultList: ResultPage,
    ResultExport: ResultExportPage,
    ResultChanges: ResultChangesPage,
    ResultInvalidate: ResultsInvalidated,
    ResultInvalidations: InvalidationPage,
    ResultReinstate: ResultsReinstated,
}
