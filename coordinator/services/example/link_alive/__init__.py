"""A worked example of a service: does an address still answer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any, ClassVar

import msgspec

from coordinator.model import ClaimNumber, ItemId
from coordinator.services import Item, Plugin, Settled, Tables
from coordinator.services.contract import Connection


class LinkSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The settings of this service beside those that all have."""

    redirects: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3


class LinkResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A result as clients submit it; `item` is added by the coordinator."""

    alive: bool
    status: Annotated[int, msgspec.Meta(ge=100, le=599)] | None = None


class LinkAlive(Plugin):
    """Does this address still answer?"""

    name = "link_alive"
    title = "Link check"
    Result = LinkResult
    Settings = LinkSettings
    defaults: ClassVar[Mapping[str, Any]] = {"bucket_size": 50}
    tables = Tables("link_alive", files("link_alive").joinpath("migrations"))

    def select(self, item: Item) -> bool:
        return item.key.startswith("https:")

    def check(self, item: Item, result: LinkResult) -> None:
        if result.alive and result.status is None:
            raise ValueError(f"{item.key} answers, so it has a status")

    def label(self, result: LinkResult) -> str:
        return "alive" if result.alive else "dead"

    async def store(self, connection: Connection, settled: Sequence[Settled]) -> None:
        await connection.executemany(
            "INSERT INTO link_seen (item_id, claim, key, alive, at) VALUES ($1, $2, $3, $4, $5)",
            [(row.item, row.claim, row.key, row.result.alive, row.at) for row in settled],
        )

    async def forget(self, connection: Connection, items: Sequence[ItemId]) -> None:
        await connection.execute("DELETE FROM link_seen WHERE item_id = ANY ($1::bigint[])", items)

    async def invalidate(self, connection: Connection, claims: Sequence[ClaimNumber]) -> None:
        await connection.execute("UPDATE link_seen SET counts = false WHERE claim = ANY ($1::bigint[])", claims)

    async def reinstate(self, connection: Connection, claims: Sequence[ClaimNumber]) -> None:
        await connection.execute("UPDATE link_seen SET counts = true WHERE claim = ANY ($1::bigint[])", claims)
