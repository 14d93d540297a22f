"""The contract of a service plugin.

A plugin is a class with a name, a title, the shape of its results, the shape of the profile that a client gives when
it joins, and those of the hooks below that it needs.  It is found by its entry point in the group
`coordinator.services`; the plugins of this package are found in the same way.  The coordinator makes one instance for
each service that uses the plugin.

Hooks that are not `async`, and `__post_init__` of results and profiles, run in processes of their own where the plugin
is from outside this package: under a deadline, with at most 1 GiB of memory, and without anything that an earlier call
or another hook has remembered.  So the class of the results is one that can be imported by its name.  The `async` ones
run in the node, in the transaction that stores a submit, and must await all that takes time.  If a plugin raises, is
too late or wants too much, only the submits that it was asked about fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources.abc import Traversable
from typing import Any, ClassVar

import msgspec

from coordinator.keys import KeyForm
from coordinator.model import ClaimNumber, ClientId, ItemId
from coordinator.services.reader import Reader

GROUP = "coordinator.services"
"""The entry point group of plugins."""

Connection = Any
"""An asyncpg connection, in a transaction; a jsonb parameter is given as JSON text."""


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
    """The tables of a plugin: a folder of migrations `0001_name.sql`, `0002_…`.

    Each migration is applied once, in order, in its own transaction, and is recorded under `name`.  Plugins that share
    tables give the same `Tables`.
    """

    name: str
    folder: Traversable


class NoProfile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The profile of services that need none."""


class NoSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The settings of plugins that have none of their own."""


class Plugin:
    """The contract of a service; a plugin derives from it and overrides what it needs.

    `Result` is the shape of one result without `item`, `Profile` that of the profile, `Settings` that of the
    plugin's own settings; each is a msgspec.Struct that forbids unknown fields.  Its `__post_init__` may raise
    ValueError to refuse values that the shape alone allows.  `defaults` replaces defaults of the settings that all
    services have; `tables` are the migrations of the plugin's own tables.  `key_form` is set by the coordinator before
    any hook is called: how the database compares keys, for `coordinator.keys.read_key`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Profile: ClassVar[type[msgspec.Struct]] = NoProfile
    Result: ClassVar[type[msgspec.Struct]]
    Settings: ClassVar[type[msgspec.Struct]] = NoSettings
    defaults: ClassVar[Mapping[str, Any]] = {}
    tables: ClassVar[Tables | None] = None
    key_form: KeyForm = "handle"

    def __init__(self, service: str, settings: Any) -> None:
        """Make the plugin of one service; `settings` is a `Settings`.

        Raises:
            ValueError: the settings cannot be used; the message says why.
        """
        self.service = service
        self.settings = settings

    def select(self, item: Item) -> bool:
        """Return whether the service has to check this item; called once, when the item is added."""
        return True

    def check(self, item: Item, result: Any) -> None:
        """Check one result that has the right shape; without side effects.

        Raises:
            ValueError, BadResult: the result cannot be right; the message says why.
        """

    def is_part(self, result: Any) -> bool:
        """Return whether a result is only a part, and leaves its item unsettled.

        Parts are not kept among the results: only `store` gets them.
        """
        return False

    def discover(self, item: Item, result: Any) -> Iterable[str]:
        """Return the keys that a result shows, whether they are known or not; without side effects.

        Where the setting `discover` of the service is on, the new ones become items, with the result; at most 10,000 of
        one result.
        """
        return ()

    def label(self, result: Any) -> str:
        """Return the kind of a result, one of a few words; the kinds of clients are compared to find wrong results.

        Clients with similar items have similar shares of each kind.  A good kind tells a wrong result from a right
        one, such as "missing"; it does not say what differs from item to item.  Unless overridden, nothing is
        compared.
        """
        return ""

    async def store(self, connection: Connection, settled: Sequence[Settled]) -> bool | None:
        """Store results in the plugin's own tables, within the transaction that stores the submit.

        Return False if nothing of it was new: then parts are no progress, and the time towards `dead_after` runs on.
        """
        return None

    async def forget(self, connection: Connection, items: Sequence[ItemId]) -> None:
        """Delete all that is stored about these items, which are deleted in this transaction."""

    async def invalidate(self, connection: Connection, claims: Sequence[ClaimNumber]) -> None:
        """Exclude the results of these claims, but keep them, since they may be reinstated.

        `claim.invalidated_by` says the same: a plugin whose tables have the claim need not override this.
        """

    async def reinstate(self, connection: Connection, claims: Sequence[ClaimNumber]) -> None:
        """Include the results of these claims again."""

    def reader(self) -> Reader:
        """Return the reader of submits' results, by the shape of `Result`."""
        return Reader(self)

    def result_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a result without `item`."""
        return schema_of(self.Result)

    # Asked by the coordinator, so that hooks which are not overridden cost nothing.

    @property
    def selects(self) -> bool:
        """Whether `select` is overridden; else it is not called."""
        return type(self).select is not Plugin.select

    @property
    def checks(self) -> bool:
        """Whether `check` is overridden."""
        return type(self).check is not Plugin.check

    @property
    def stores(self) -> bool:
        """Whether `store` is overridden."""
        return type(self).store is not Plugin.store

    @property
    def discovers(self) -> bool:
        """Whether `discover` is overridden."""
        return type(self).discover is not Plugin.discover

    @property
    def labels(self) -> bool:
        """Whether `label` is overridden."""
        return type(self).label is not Plugin.label

    @property
    def built_in(self) -> bool:
        """Whether the plugin is part of this package, and so trusted not to block the event loop."""
        return type(self).__module__.startswith("coordinator.services.")


def schema_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema of a shape; it refers to nothing outside itself."""
    (schema,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    if "$ref" in schema:
        schema = components.pop(schema["$ref"].rsplit("/", 1)[1])
    return {**schema, "$defs": components} if components else schema
