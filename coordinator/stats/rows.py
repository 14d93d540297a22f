"""Rows of the database as the stats channel tells them: one builder for each kind of row.

A column that has the name of a field goes there by itself (`filled`), so that a new column needs its statement and its
field only.  Behind these functions no row is a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.flow.catalogue import Catalogue
from coordinator.model import Health, Service, ServiceSettings
from coordinator.observe.node_load import NodeLoad, Pending
from coordinator.store.items import ResultRow
from coordinator.store.statistics import ServiceTotals
from coordinator.wire import stats as wire
from coordinator.wire.frames import ListedResult
from coordinator.wire.paging import time_text

Columns = Mapping[str, Any]
"""A row of the database by the names of its columns."""

S = TypeVar("S", bound=Struct)

_ABSENT = object()

_PLAIN = frozenset({str, int, float, bool, NoneType})
"""Most values, which stay as they are: pages have many of them."""

_HEALTH: tuple[Health, ...] = ("ok", "watched", "flagged")


def filled(kind: type[S], *sources: object, **given: object) -> S:
    """Make a struct of what the sources (dictionaries or objects) have under the names of its fields.

    `given` goes before the first source, which goes before the next.  Times and ids become text.

    Raises:
        LookupError: a field is in none of them.
    """
    for name in kind.__struct_fields__:
        if name in given:
            continue

        for source in sources:
            value = source.get(name, _ABSENT) if isinstance(source, dict) else getattr(source, name, _ABSENT)
            if value is not _ABSENT:
                break
        else:
            raise LookupError(f"there is no {name} for {kind.__name__}")

        given[name] = value if type(value) in _PLAIN else _as_text(value)
    return kind(**given)


def _as_text(value: object) -> object:
    if isinstance(value, datetime):
        return time_text(value)
    return str(value) if isinstance(value, UUID) else value


# Services


def service_row(
    service: Service, totals: ServiceTotals, demand: wire.DemandCounts, items_per_second: float, eta: wire.Eta | None
) -> wire.ServiceRow:
    """Return a service with its items and buckets by state, its demand and its rate."""
    return filled(
        wire.ServiceRow,
        service,
        totals,
        service=service.name,
        items=filled(wire.Items, totals),
        buckets=wire.Buckets(**totals.buckets),
        items_per_second=items_per_second,
        eta=eta,
        oldest=oldest_rows(totals, service.settings),
        demand=demand,
    )


def oldest_rows(totals: ServiceTotals, settings: ServiceSettings) -> list[wire.Oldest]:
    """Return for each priority since when its oldest unclaimed item waits, and until when it can be overtaken."""
    return [
        wire.Oldest(priority, time_text(oldest.since), time_text(settings.overtaken_until(oldest.rank_at)))
        for priority, oldest in sorted(totals.oldest.items())
    ]


# Clients


def client_row(row: Columns, catalogue: Catalogue) -> wire.ClientRow:
    """Return a client with its services; its health is the worst of theirs."""
    health = _HEALTH[row["health"] - 1]
    reason = next((one["health_reason"] for one in row["services"] if one["health"] == health != "ok"), None)
    memberships = [
        membership_row(membership, name)
        for membership in row["services"]
        if (name := catalogue.name_of(membership["service_id"])) is not None
    ]
    return filled(wire.ClientRow, row, health=health, reason=reason, services=memberships)


def membership_row(row: Columns, service: str) -> wire.ClientInService:
    """Return a client's work in one service."""
    active = row["joined"] and row["inactive"] is None
    return filled(wire.ClientInService, row, service=service, active=active, reason=row["health_reason"])


# Results, buckets, events, history


def result_row(row: ResultRow) -> ListedResult:
    """Return a result with its origin."""
    return filled(ListedResult, row)


def bucket_row(row: Columns, catalogue: Catalogue) -> wire.BucketRow:
    """Return an open bucket."""
    age = None if row["age"] is None else round(row["age"], 1)
    return filled(wire.BucketRow, row, service=catalogue.name_of(row["service_id"]) or "", age=age)


def event_row(row: Columns) -> wire.EventRow:
    """Return something that happened."""
    return filled(wire.EventRow, row)


def history_row(row: Columns, service: str) -> wire.HistoryRow:
    """Return one minute or hour of one service."""
    return filled(wire.HistoryRow, row, service=service)


def leader_row(row: Columns, place: int) -> wire.LeaderRow:
    """Return a volunteer's place."""
    return filled(wire.LeaderRow, row, place=place)


# Nodes


class NodeReport(NamedTuple):
    """A node as it told of itself with its last renewal, and the demand of its clients."""

    row: wire.NodeRow
    pending: Pending


def node_report(row: Columns) -> NodeReport:
    """Return a node; without its load, if it is of another version."""
    try:
        load = msgspec.convert(row["load"], NodeLoad)
    except msgspec.ValidationError:
        load = NodeLoad()
    return NodeReport(filled(wire.NodeRow, row, load), load.pending)
