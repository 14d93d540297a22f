"""Rows of the database as the stats channel tells them: one builder for each kind of row.

A column that has the name of a field goes there by itself (`filled`), so that a new column needs its statement and its
field only.  Behind these functions no row is a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct, structs

from coordinator.flow.catalogue import Catalogue
from coordinator.model import Health, Service, ServiceSettings
from coordinator.observe.node_load import NodeLoad, Pending
from coordinator.store.statistics import ServiceState
from coordinator.wire import stats as wire
from coordinator.wire.times import time_text

Columns = Mapping[str, Any]
"""A row of the database by the names of its columns."""

S = TypeVar("S", bound=Struct)

_HEALTH: tuple[Health, ...] = ("ok", "watched", "flagged")


def filled(kind: type[S], source: object, **given: object) -> S:
    """Make a struct of what `source` (a mapping or an object) has under the names of its fields; `given` goes first.

    Times and ids become text.

    Raises:
        KeyError, AttributeError: `source` lacks a field.
    """
    read = source.__getitem__ if isinstance(source, Mapping) else partial(getattr, source)
    return kind(**{name: given[name] if name in given else _told(read(name)) for name in kind.__struct_fields__})


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return time_text(value)
    return str(value) if isinstance(value, UUID) else value


# Services


def service_row(
    service: Service, state: ServiceState, demand: wire.DemandCounts, items_per_second: float, eta: wire.Eta | None
) -> wire.ServiceRow:
    """Return a service with its items and buckets by state, its demand and its rate."""
    return filled(
        wire.ServiceRow,
        service,
        service=service.name,
        items=filled(wire.Items, state),
        buckets=wire.Buckets(**state.buckets),
        items_per_second=items_per_second,
        eta=eta,
        oldest=oldest_rows(state, service.settings),
        demand=demand,
    )


def oldest_rows(state: ServiceState, settings: ServiceSettings) -> list[wire.Oldest]:
    """Return for each priority since when its oldest unclaimed item waits, and until when it can be overtaken."""
    return [
        wire.Oldest(priority, time_text(oldest.since), time_text(settings.overtaken_until(oldest.rank_at)))
        for priority, oldest in sorted(state.oldest.items())
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
    return filled(wire.ClientRow, row, state=client_state(row), health=health, reason=reason, services=memberships)


def client_state(row: Columns) -> str:
    """Return `deactivated`, `unregistered`, `inactive` (idle in all of its services) or `active`."""
    if row["deactivated"] is not None:
        return "deactivated"
    if not row["registered"]:
        return "unregistered"
    return "inactive" if row["idle"] else "active"


def membership_row(row: Columns, service: str) -> wire.ClientInService:
    """Return a client's work in one service."""
    active = row["joined"] and row["inactive"] is None
    return filled(wire.ClientInService, row, service=service, active=active, reason=row["health_reason"])


# Buckets, events, history


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
    return NodeReport(filled(wire.NodeRow, {**structs.asdict(load), **row}), load.pending)
