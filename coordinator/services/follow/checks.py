"""Who follows an account, and whom it follows."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from coordinator.model import ItemId
from coordinator.services.contract import Connection, Item, Plugin, Settled, Tables
from coordinator.services.dm_check import ScreenName
from coordinator.services.follow import graph

MOST = 1000
"""Accounts known to have more to find are left out: an outside API gives a few hundred a call, and few calls."""

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class FollowProfile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The account from which a client checks, if it wants to tell."""

    source: ScreenName | UnsetType = UNSET
    source_id: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Account(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One account that was found."""

    key: Key
    attributes: dict[str, Any] | UnsetType = UNSET


class FollowResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The accounts that were found, whole or (`complete: false`) a part; or `missing` alone."""

    accounts: list[Account] | UnsetType = UNSET
    complete: bool = True
    missing: Literal[True] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.missing is UNSET:
            if self.accounts is UNSET:
                raise ValueError("Object missing required field `accounts`")
        elif self.accounts is not UNSET or not self.complete:
            raise ValueError("`missing` stands alone")


class FollowCheck(Plugin):
    """What both have in common."""

    Profile = FollowProfile
    Result = FollowResult
    tables = Tables("follow", files(__package__).joinpath("migrations"))
    counted: ClassVar[str]
    """The attribute of an item that says how many accounts there are to find."""
    found_follow: ClassVar[bool]
    """Those that are found follow the item's account, not the other way round."""

    def select(self, item: Item) -> bool:
        count = item.attributes.get(self.counted)
        if isinstance(count, str) and count.isdecimal():  # a column of a CSV
            count = int(count)
        return not isinstance(count, int | float) or count <= MOST

    def is_part(self, result: FollowResult) -> bool:
        return not result.complete

    def label(self, result: FollowResult) -> str:
        if result.missing is not UNSET:
            return "missing"
        return "some" if result.accounts else "none"

    async def store(self, connection: Connection, settled: Sequence[Settled]) -> None:
        accounts: dict[str, str | None] = {}
        edges: list[graph.Edge] = []
        for one in settled:
            if one.result.missing is not UNSET:
                continue
            accounts.setdefault(one.key, None)
            for account in one.result.accounts:
                told = account.attributes
                accounts[account.key] = accounts.get(account.key) if told is UNSET else _json(told)
                edges.append((one.item, one.key, account.key))
        if edges:
            claim, at = settled[0].claim, settled[0].at
            await graph.see(connection, accounts, edges, claim, at, found_follow=self.found_follow)

    async def forget(self, connection: Connection, items: Sequence[ItemId]) -> None:
        await graph.forget(connection, items)


class FollowerCheck(FollowCheck):
    """Who follows this account?"""

    name = "follower_check"
    title = "Follower check"
    counted = "followers"
    found_follow = True


class FollowingCheck(FollowCheck):
    """Whom does this account follow?"""

    name = "following_check"
    title = "Following check"
    counted = "following"
    found_follow = False


def _json(attributes: dict[str, Any]) -> str:
    return msgspec.json.encode(attributes).decode()
