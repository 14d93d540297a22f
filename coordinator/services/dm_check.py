"""The service that checks whether an account accepts direct messages from strangers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from coordinator.services.contract import Plugin

ScreenName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


# In Python `$` matches before a newline at the end, too; elsewhere there is no `\\Z`.
Identifier = (
    Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,32}(?!\n)$")]
)
"""The number of an account, kept as it was given: not every JSON reader holds integers beyond 2^53 exactly."""


class DmProfile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The account from which a client checks."""

    source: ScreenName
    source_id: Identifier | None = None


class DmResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`UNKNOWN`: the account does not exist, or does not show it."""

    dm: Literal["DM", "NON_DM", "UNKNOWN"]


class DmCheck(Plugin):
    """Checks whether a stranger may send an account a direct message."""

    name = "dm_check"
    title = "DM check"
    Profile = DmProfile
    Result = DmResult

    def label(self, result: DmResult) -> str:
        return result.dm
