"""Rows, and parts of rows, that the admin and the stats channel both send."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model import ServiceSettings
from coordinator.store.items import ResultRow
from coordinator.store.statistics import ServiceState
from coordinator.wire.admin.clients import ClientState
from coordinator.wire.admin.results import ListedResult
from coordinator.wire.paging import time_text
from coordinator.wire.stats import Oldest


def result_row(row: ResultRow) -> ListedResult:
    """A result with its origin."""
    return ListedResult(
        service=row.service,
        item=row.item,
        key=row.key,
        value=row.value,
        client_id=row.client_id,
        session_id=str(row.session_id),
        bucket_id=str(row.bucket_id),
        claim=row.claim,
        at=time_text(row.at),
        valid=row.valid,
    )


def client_state(*, deactivated: bool, registered: bool, idle: bool) -> ClientState:
    """The state of a client; `idle`: it is inactive in each service that it has joined, and has joined one."""
    if deactivated:
        return "deactivated"
    if not registered:
        return "unregistered"
    return "inactive" if idle else "active"


def oldest_rows(state: ServiceState, settings: ServiceSettings) -> list[Oldest]:
    """For each priority, since when its oldest unclaimed item waits, and until when it can be overtaken at most."""
    longest = timedelta(seconds=settings.max_head_start)
    return [
        Oldest(
            priority=priority,
            since=time_text(oldest.since),
            # Nothing that arrives after that can come before it.  protocol.md, "Rank"
            overtaken_until=time_text(oldest.rank_at + longest),
        )
        for priority, oldest in sorted(state.oldest.items())
    ]
