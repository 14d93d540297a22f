"""Rows of the database as the stats channel tells them."""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.flow.catalogue import Catalogue
from coordinator.model import Health
from coordinator.observe.node_load import NodeLoad
from coordinator.wire import stats as wire
from coordinator.wire.paging import time_text

Row = dict[str, Any]

BEYOND = 2**62
"""Greater than any number of a row."""

_HEALTH: tuple[Health, ...] = ("ok", "watched", "flagged")


def client_row(row: Row, catalogue: Catalogue) -> wire.ClientRow:
    """A client with its services; its health is the worst of theirs."""
    health = _HEALTH[row["health"] - 1]
    reason = next((one["health_reason"] for one in row["services"] if one["health"] == health != "ok"), None)
    return wire.ClientRow(
        client_id=row["client_id"],
        screen_name=row["screen_name"],
        state=client_state(row),
        connected=row["connected"],
        health=health,
        reason=reason,
        held=row["held"],
        settled=row["settled"],
        given_back=row["given_back"],
        dead=row["dead"],
        last_access=None if row["last_access"] is None else time_text(row["last_access"]),
        services=[
            _membership(one, name)
            for one in row["services"]
            if (name := catalogue.name_of(one["service_id"])) is not None
        ],
    )


def client_state(row: Row) -> str:
    """`deactivated`, `unregistered`, `inactive` (idle in all of its services) or `active`."""
    if row["deactivated"] is not None:
        return "deactivated"
    if not row["registered"]:
        return "unregistered"
    return "inactive" if row["idle"] else "active"


def _membership(row: Row, service: str) -> wire.ClientInService:
    return wire.ClientInService(
        service=service,
        joined=row["joined"],
        active=row["joined"] and row["inactive"] is None,
        held=row["held"],
        assigned=row["assigned"],
        processed=row["processed"],
        settled=row["settled"],
        given_back=row["given_back"],
        dead=row["dead"],
        disconnects=row["disconnects"],
        bad_submits=row["bad_submits"],
        health=row["health"],
        reason=row["health_reason"],
        last_access=time_text(row["last_access"]),
    )


def bucket_row(row: Row, catalogue: Catalogue) -> wire.BucketRow:
    """An open bucket."""
    return wire.BucketRow(
        bucket_id=str(row["bucket_id"]),
        service=catalogue.name_of(row["service_id"]) or "",
        state=row["state"],
        client_id=row["client_id"],
        claim=row["claim"],
        attempts=row["attempts"],
        remaining=row["remaining"],
        age=None if row["age"] is None else round(row["age"], 1),
    )


def load_of(row: Row) -> NodeLoad:
    """What a node said of itself; nothing, if it is of another version."""
    try:
        return msgspec.convert(row["load"], NodeLoad)
    except msgspec.ValidationError:
        return NodeLoad()


def node_row(row: Row) -> wire.NodeRow:
    """A node."""
    load = load_of(row)
    return wire.NodeRow(
        node=row["node"],
        boot=row["boot"],
        state=row["state"],
        version=row["version"],
        started_at=time_text(row["started_at"]),
        lease_until=time_text(row["lease_until"]),
        sessions=load.sessions,
        items_per_second=load.items_per_second,
        cpu=load.cpu,
        memory=load.memory,
        lag=load.lag,
    )


def event_row(row: Row) -> wire.EventRow:
    """Something that happened."""
    return wire.EventRow(
        event_id=row["event_id"],
        at=time_text(row["at"]),
        kind=row["kind"],
        client_id=row["client_id"],
        service=row["service"],
        bucket_id=row["bucket_id"],
        text=row["text"],
    )


def history_row(row: Row, service: str) -> wire.HistoryRow:
    """One minute or hour of one service."""
    return wire.HistoryRow(
        at=time_text(row["at"]),
        service=service,
        settled=row["settled"],
        buckets=row["buckets"],
        given_back=row["given_back"],
        dead=row["dead"],
        disconnects=row["disconnects"],
        bad_submits=row["bad_submits"],
    )
