"""Rows of the database as the stats channel tells them: one builder for each kind of row.

A column that has the name of a field goes there by itself (`filled`), so that a new column needs its statement and its
field only.  Behind these functions no row is a dictionary.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.flow.catalogue import Catalogue, Entry
from coordinator.flow.doing import DoingFacts, doing
from coordinator.flow.wait_reasons import waiting_of
from coordinator.flow.wait_view import WaitKey
from coordinator.model import Health, ItemState, Service, ServiceId, ServiceSettings, Wait
from coordinator.observe.node_load import NodeLoad, Pending
from coordinator.services.settings import settings_schema
from coordinator.store.boards import Leader
from coordinator.store.item_places import PlacedItem, PlaceInService
from coordinator.store.items import ResultRow
from coordinator.store.statistics import ServiceTotals
from coordinator.wire import stats as wire
from coordinator.wire.frames import Discovered, Doing, ListedResult
from coordinator.wire.paging import time_text
from coordinator.wire.stats_clients import ClientInService, ClientRow

Columns = Mapping[str, Any]
"""A row of the database by the names of its columns."""

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

_ABSENT = object()

_PLAIN = frozenset({str, int, float, bool, NoneType})
"""Most values, which stay as they are: pages have many of them."""

ROWS_A_TURN = 100
"""Rows that are made before others have a turn: about a millisecond."""

BY_AN_ADMIN = "by an admin"
"""The reason of a deactivation for onlookers: the admin's own words are for operators and the client."""

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


async def made(make: Callable[[T], S], found: Sequence[T]) -> list[S]:
    """Make the rows of a page, which may be a thousand; others have a turn now and then."""
    page: list[S] = []
    for start in range(0, len(found), ROWS_A_TURN):
        page.extend(map(make, found[start : start + ROWS_A_TURN]))
        await asyncio.sleep(0)
    return page


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


def service_schemas(entry: Entry) -> wire.ServiceSchemas:
    """Return how the results and settings of a service look, and its settings."""
    return wire.ServiceSchemas(
        service=entry.service.name,
        result_schema=entry.card["result_schema"],
        settings_schema=settings_schema(type(entry.plugin)),
        settings=entry.card["settings"],
    )


def oldest_rows(totals: ServiceTotals, settings: ServiceSettings) -> list[wire.Oldest]:
    """Return for each priority since when its oldest unclaimed item waits, and until when it can be overtaken."""
    return [
        wire.Oldest(priority, time_text(oldest.since), time_text(settings.overtaken_until(oldest.rank_at)))
        for priority, oldest in sorted(totals.oldest.items())
    ]


# Clients


def client_row(
    row: Columns, catalogue: Catalogue, waits: Mapping[WaitKey, Wait], *, operator: bool = False
) -> ClientRow:
    """Return a client with its services, and why it waits in some; its health is the worst of theirs.

    Only for an operator it has the words of the admin who deactivated it.
    """
    health = _HEALTH[row["health"] - 1]
    reason = next((one["health_reason"] for one in row["services"] if one["health"] == health != "ok"), None)
    memberships = [
        membership_row(membership, name, waits.get((row["client_id"], membership["service_id"])), operator=operator)
        for membership in row["services"]
        if (name := catalogue.name_of(membership["service_id"])) is not None
    ]

    names = {one["service_id"]: catalogue.name_of(one["service_id"]) for one in row["services"]}
    return filled(
        ClientRow,
        row,
        deactivated=_words(row["deactivated"], operator=operator),
        health=health,
        reason=reason,
        doing=doing_of(row, {service: name for service, name in names.items() if name is not None}, waits),
        services=memberships,
    )


def doing_of(row: Columns, names: Mapping[ServiceId, str], waits: Mapping[WaitKey, Wait]) -> Doing:
    """Return what a client does now; `names` are those of the services that are told of."""
    facts = [
        filled_facts(one, names[one["service_id"]], waits.get((row["client_id"], one["service_id"])))
        for one in row["services"]
        if one["joined"] and one["service_id"] in names
    ]
    last_access = max((one["last_access"] for one in row["services"]), default=None)
    return doing(facts, connected=bool(row["connected"]), last_access=last_access)


def filled_facts(row: Columns, service: str, wait: Wait | None) -> DoingFacts:
    """Return the facts about a client in one service."""
    return DoingFacts(
        service=service,
        held=row["held"],
        report_kind=row["report_kind"],
        reported_until=row["reported_until"],
        streak=row["streak"],
        backing_off_until=row["backing_off_until"],
        wait=wait,
    )


def membership_row(row: Columns, service: str, wait: Wait | None, *, operator: bool) -> ClientInService:
    """Return a client's work in one service, and why it waits, if it does."""
    return filled(
        ClientInService,
        row,
        service=service,
        active=row["joined"] and row["inactive"] is None,
        inactive_reason=_words(row["inactive_reason"], operator=operator),
        reason=row["health_reason"],
        waiting=waiting_of(wait),
    )


def _words(reason: str | None, *, operator: bool) -> str | None:
    """Return why a client was deactivated, as it is told."""
    return reason if operator or reason is None else BY_AN_ADMIN


# Items, results, buckets, events, history


_ENDED: dict[str, str] = {
    "cut_off": "cut off",
    "dead": "held too long",
    "partial": "submitted without it",
    "expired": "held too long in all",
}
"""How a claim failed, in words."""


def item_row(placed: PlacedItem) -> wire.ItemRow:
    """Return an item with its place in each service."""
    found = None if placed.found is None else filled(Discovered, placed.found)
    return filled(wire.ItemRow, placed.item, found=found, services=[item_place(place) for place in placed.places])


def item_place(place: PlaceInService) -> wire.ItemPlace:
    """Return where an item is in one service."""
    return filled(wire.ItemPlace, place, reason=failures(place.ended) if place.state == "quarantined" else None)


def failures(ended: Sequence[str]) -> str | None:
    """Tell in words how the claims of an item that stood alone failed; None if that is not known any more."""
    times = Counter(_ENDED[how] for how in ended if how in _ENDED)
    return ", ".join(f"{words} {count} {'time' if count == 1 else 'times'}" for words, count in times.items()) or None


def item_state(text: str | None) -> ItemState | None:
    """Return the state of items that a filter names; it was checked before."""
    return next((state for state in get_args(ItemState) if state == text), None)


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


def leader_row(leader: Leader) -> wire.LeaderRow:
    """Return a volunteer's place."""
    return filled(wire.LeaderRow, leader)


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
