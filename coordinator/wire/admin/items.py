"""Requests `item.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from coordinator.model import ItemState, JsonObject
from coordinator.wire.admin.fields import After, Keys, Ok, Priority
from coordinator.wire.frames import Answer, Discovered, ListedResult, Name, PageSize, Request


class ItemAdd(Request, tag="item.add"):
    """Add items to the catalogue and to services.

    `items` are objects with a `key` and attributes of any name; each is checked on its own.
    """

    items: Annotated[list[Any], Meta(max_length=10_000)]
    services: list[Name] | None = None
    priority: Priority = 100


class Refusal(Struct, frozen=True):
    """One item that `item.add` did not take; `index` is its place in `items`."""

    index: int
    key: str | None
    reason: str


class ItemsAdded(Ok, kw_only=True):
    """How many items are new, how many were known, and those that were refused."""

    added: int
    known: int
    refused: list[Refusal]


class ItemPrioritize(Request, tag="item.prioritize"):
    """Put items into buckets at once."""

    keys: Keys
    service: Name
    priority: Priority = 0


class ItemsPrioritized(Ok, kw_only=True):
    """How many items were prioritised, and the keys of no item."""

    prioritized: int
    unknown: list[str]


class ItemDelete(Request, tag="item.delete"):
    """Remove items with all their results."""

    keys: Keys


class ItemsDeleted(Ok, kw_only=True):
    """How many items were removed, and the keys of no item."""

    deleted: int
    unknown: list[str]


class ItemList(Request, tag="item.list"):
    """List the items of the catalogue, by their keys; with `service` or `state`, those that have it somewhere."""

    service: Name | None = None
    state: ItemState | None = None
    prefix: Annotated[str, Meta(max_length=256)] | None = None
    limit: PageSize = 100
    after: After | None = None


class ItemInList(Struct):
    """The state of a listed item in one service."""

    service: str
    state: ItemState


class ListedItem(Struct):
    """An item of the catalogue, and where it is in each service that has it."""

    item: int
    key: str
    attributes: JsonObject
    services: list[ItemInList]


class ItemPage(Ok, kw_only=True):
    """One page of items; it may be shorter than asked for while there is a `next`."""

    rows: list[ListedItem]
    next: str | None


class ListedWaitingItem(Struct):
    """An item that is not in a bucket."""

    service: str
    item: int
    key: str
    priority: int
    since: str


class ItemWaiting(Request, tag="item.waiting"):
    """List the items of a service that are not in a bucket, in rank order."""

    service: Name
    limit: PageSize = 100
    after: After | None = None


class WaitingPage(Ok, kw_only=True):
    """One page of items that wait."""

    rows: list[ListedWaitingItem]
    next: str | None


class ItemShow(Request, tag="item.show"):
    """Show one item in every service, with the origin of each result."""

    key: str


class ItemInService(Struct):
    """Where an item is in one service, and its results there, newest first."""

    service: str
    state: ItemState
    results: list[ListedResult]


class ItemShown(Ok, kw_only=True):
    """One item in every service, and the result that showed it if nobody had added it."""

    item: int
    key: str
    attributes: JsonObject
    found: Discovered | None
    services: list[ItemInService]


class ListedQuarantinedItem(Struct):
    """An item that was set aside after so many failed claims."""

    service: str
    item: int
    key: str
    attempts: int
    since: str


class ItemQuarantined(Request, tag="item.quarantined"):
    """List the items that were set aside, since their claims kept failing."""

    service: Name | None = None
    limit: PageSize = 100
    after: After | None = None


class QuarantinedPage(Ok, kw_only=True):
    """One page of items that were set aside."""

    rows: list[ListedQuarantinedItem]
    next: str | None


class ItemRetry(Request, tag="item.retry"):
    """Let quarantined items wait again."""

    keys: Keys
    service: Name


class ItemsRetried(Ok, kw_only=True):
    """How many items wait again, and the keys of those that were not quarantined in that service."""

    retried: int
    unknown: list[str]


ANSWERS: dict[type[Request], type[Answer]] = {
    ItemAdd: ItemsAdded,
    ItemPrioritize: ItemsPrioritized,
    ItemDelete: ItemsDeleted,
    ItemList: ItemPage,
    ItemWaiting: WaitingPage,
    ItemShow: ItemShown,
    ItemQuarantined: QuarantinedPage,
    ItemRetry: ItemsRetried,
}

ADMIN_ONLY: frozenset[type[Request]] = frozenset({ItemDelete})
