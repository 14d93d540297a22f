"""What a service is made of.

A plugin is a class with a name, a title, the shape of its result and that of what a client tells when it joins, and
whatever of the hooks below it needs.  It is found by its entry point in the group `coordinator.services`; those that
ship with this package use the same door.  Of each service that uses it, the coordinator makes one instance.

Hooks that are not `async` may be called in any thread.  Those of a plugin from outside this package run off the event
loop and under a deadline; the `async` ones run in the transaction that stores a submit, and must await all that takes
time.  A plugin that raises, or is too late, spoils only the submits that it was asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources.abc import Traversable
from typing import Any, ClassVar

import msgspec

from coordinator.model import ClaimNumber, ClientId, ItemId
from coordinator.services.reader import Reader

GROUP = "coordinator.services"

Connection = Any
"""An asyncpg connection, in a transaction; jsonb goes in as text that is JSON already."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item as a plugin sees it."""

    item: ItemId
    key: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """A result that is being stored, or a part of one (`part`), with its origin."""

    item: ItemId
    key: str
    result: Any
    part: bool
    claim: ClaimNumber
    client_id: ClientId
    at: datetime


@dataclass(frozen=True, slots=True)
class Tables:
    """A plugin's own tables: a folder of migrations `0001_name.sql`, `0002_…`.

    Each is applied once, in order, in a transaction of its own, and noted under `name`.  Plugins that share tables
    name the same ones.
    """

    name: str
    folder: Traversable


class NoProfile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """For services to which a client tells nothing about itself."""


class NoSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """For plugins that have no settings of their own."""


class Plugin:
    """The contract of a service; a plugin derives from it and overrides what it needs.

    `Result` is the shape of one result without `item`, `Profile` that of the profile, `Settings` that of the
    settings of its own, each a msgspec.Struct that forbids unknown fields; a `__post_init__` of theirs that raises
    ValueError refuses what the shape alone lets pass.  `defaults` are other defaults for the settings that all
    services have, `tables` the migrations of its own tables.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Profile: ClassVar[type[msgspec.Struct]] = NoProfile
    Result: ClassVar[type[msgspec.Struct]]
    Settings: ClassVar[type[msgspec.Struct]] = NoSettings
    defaults: ClassVar[Mapping[str, Any]] = {}
    tables: ClassVar[Tables | None] = None

    def __init__(self, service: str, settings: Any) -> None:
        """`settings` is a `Settings`.

        Raises:
            ValueError: they cannot be used, and why.
        """
        self.service = service
        self.settings = settings

    def select(self, item: Item) -> bool:
        """Whether this item concerns the service; asked once, when the item joins."""
        return True

    def check(self, item: Item, result: Any) -> None:
        """Look at one result of the right shape; pure.

        Raises:
            ValueError, BadResult: the result cannot be, and why.
        """

    def is_part(self, result: Any) -> bool:
        """Whether a result only adds to what is known, and leaves its item unsettled.

        Parts are not kept among the results: only `store` sees them.
        """
        return False

    def label(self, result: Any) -> str:
        """Of which kind a result is, in one of a few words, so that clients whose results are out of line are seen.

        Clients that are given like items have like shares of each kind: say what tells a wrong result from a right
        one, such as "missing", not what differs from item to item.  Unless overridden, nothing is compared.
        """
        return ""

    async def store(self, connection: Connection, settled: Sequence[Settled]) -> None:
        """Keep what was found out in tables of the plugin's own, within the transaction that stores the submit."""

    async def forget(self, connection: Connection, items: Sequence[ItemId]) -> None:
        """These items are deleted, within this transaction; so is all that is known of them."""

    async def invalidate(self, connection: Connection, claims: Sequence[ClaimNumber]) -> None:
        """What came through these claims does not count any more; it is kept, since it may be reinstated.

        `claim.invalidated_by` says the same; a table that keeps the claim needs nothing here.
        """

    async def reinstate(self, connection: Connection, claims: Sequence[ClaimNumber]) -> None:
        """What came through these claims counts again."""

    def reader(self) -> Reader:
        """What reads the results of submits, by the shape of `Result`."""
        return Reader(self)

    def result_schema(self) -> dict[str, Any]:
        """The JSON Schema of a result without `item`."""
        return schema_of(self.Result)

    # What the coordinator asks so that hooks which do nothing cost nothing.

    @property
    def selects(self) -> bool:
        """Whether `select` was overridden; else it is not asked."""
        return type(self).select is not Plugin.select

    @property
    def checks(self) -> bool:
        """Whether `check` was."""
        return type(self).check is not Plugin.check

    @property
    def stores(self) -> bool:
        """Whether `store` was."""
        return type(self).store is not Plugin.store

    @property
    def labels(self) -> bool:
        """Whether `label` was."""
        return type(self).label is not Plugin.label

    @property
    def built_in(self) -> bool:
        """Whether it ships with this package: trusted not to block."""
        return type(self).__module__.startswith("coordinator.services.")


def schema_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a shape, whole in itself."""
    (schema,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    if "$ref" in schema:
        schema = components.pop(schema["$ref"].rsplit("/", 1)[1])
    return {**schema, "$defs": components} if components else schema
