"""The services that check the followers of an account, and the accounts that it follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from coordinator.keys import Key, compared, read_key, refuse_invisible
from coordinator.model import ItemId
from coordinator.services.contract import Connection, Item, Plugin, Settled, Tables
from coordinator.services.dm_check import Identifier, ScreenName
from coordinator.services.follow import graph

MAX_ACCOUNTS = 1000
"""Accounts to find for one item; items known to have more are left out: an API gives a few hundred a call."""

AccountKey = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class FollowSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`max_accounts` is the number of accounts that one result may have, be it a part or the whole."""

    max_accounts: Annotated[
        int, msgspec.Meta(ge=1, le=1_000_000, description="Accounts of one result, be it a part or the whole.")
    ] = 20_000


class FollowProfile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The account from which a client checks, if it wants to tell."""

    source: ScreenName | UnsetType = UNSET
    source_id: Identifier | None = None


class Account(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One account found."""

    key: AccountKey
    attributes: dict[str, Any] | UnsetType = UNSET


class FollowResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The accounts found, all or (`complete: false`) a part of them; or `missing` alone: the account does not exist."""

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
    """The common part of both checks."""

    Profile = FollowProfile
    Result = FollowResult
    Settings = FollowSettings
    defaults: ClassVar[Mapping[str, Any]] = {"max_result_bytes": 1_048_576}
    tables = Tables("follow", files(__package__).joinpath("migrations"))
    counted: ClassVar[str]
    """The attribute of an item with the number of accounts to find."""
    found_follow: ClassVar[bool]
    """Whether the accounts found follow the item's account, not the other way round."""

    def select(self, item: Item) -> bool:
        count = item.attributes.get(self.counted)
        if isinstance(count, str) and count.isdecimal():  # a column of a CSV
            count = int(count)
        return not isinstance(count, int | float) or count <= MAX_ACCOUNTS

    def check(self, item: Item, result: FollowResult) -> None:
        count = 0 if result.accounts is UNSET else len(result.accounts)
        if count > self.settings.max_accounts:
            raise ValueError(f"it has {count} accounts, {self.settings.max_accounts} at most are taken")
        for place, account in enumerate(result.accounts or ()):
            try:
                refuse_invisible(account.key)
            except ValueError as reason:
                raise ValueError(f"accounts[{place}].key: {reason}") from None

    def is_part(self, result: FollowResult) -> bool:
        return not result.complete

    def discover(self, item: Item, result: FollowResult) -> Iterable[str]:
        return (account.key for account in result.accounts or ())

    def label(self, result: FollowResult) -> str:
        if result.missing is not UNSET:
            return "missing"
        return "some" if result.accounts else "none"

    async def store(self, connection: Connection, settled: Sequence[Settled]) -> bool:
        accounts: dict[str, Key] = {}
        told: dict[str, graph.Told] = {}
        edges: list[graph.Edge] = []
        for sighting in settled:
            if sighting.result.missing is not UNSET:
                continue
            owner = self._seen(sighting.key, accounts)
            for account in sighting.result.accounts:
                found = self._seen(account.key, accounts)
                if account.attributes is not UNSET:
                    told[found] = found, sighting.item, _json(account.attributes)
                edges.append((sighting.item, owner, found))

        if not edges:
            return False
        claim, at = settled[0].claim, settled[0].at
        return (
            await graph.add_edges(
                connection, accounts.values(), list(told.values()), edges, claim, at, found_follow=self.found_follow
            )
            > 0
        )

    def _seen(self, written: str, accounts: dict[str, Key]) -> str:
        """Put an account among the others, unless it is there; returns its canonical key."""
        key = read_key(written, self.key_form)
        canonical = compared(key)
        accounts.setdefault(canonical, key)
        return canonical

    async def forget(self, connection: Connection, items: Sequence[ItemId]) -> None:
        await graph.forget(connection, items)


class FollowerCheck(FollowCheck):
    """Lists the accounts that follow an account."""

    name = "follower_check"
    title = "Follower check"
    counted = "followers"
    found_follow = True


class FollowingCheck(FollowCheck):
    """Lists the accounts that an account follows."""

    name = "following_check"
    title = "Following check"
    counted = "following"
    found_follow = False


def _json(attributes: dict[str, Any]) -> str:
    return msgspec.json.encode(attributes).decode()
