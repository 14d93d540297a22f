"""Requests `result.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw

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
    limit: Annotated[int, Meta(ge=1, le=20_000)] = 1000
    after: After | None = None


class ResultExportPage(Ok, kw_only=True):
    """One page of results, as the database wrote them."""

    rows: Raw
    next: str | None


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


class ResultReinstate(Request, tag="result.reinstate"):
    """Undo `result.invalidate`."""

    invalidation_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class ResultsReinstated(Ok, kw_only=True):
    """How many results count again."""

    count: int


ANSWERS: dict[type[Request], type[Answer]] = {
    ResultList: ResultPage,
    ResultExport: ResultExportPage,
    ResultInvalidate: ResultsInvalidated,
    ResultReinstate: ResultsReinstated,
}
