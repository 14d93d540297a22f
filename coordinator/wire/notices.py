"""Messages of the operator to clients, as both channels have them.  protocol.md, "notice" """

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.model import NoticeLevel

NoticeText = Annotated[str, Meta(min_length=1, max_length=2000)]
"""Plain text, in lines."""


class NoticeInForce(Struct, kw_only=True):
    """A message of the operator that has neither ended nor been withdrawn; `welcome.notices`.

    `service`: it is about that service, and meant for its members.  `until`: when it ends by itself.
    """

    notice_id: str
    at: str
    level: NoticeLevel
    text: str
    service: str | UnsetType = UNSET
    until: str | UnsetType = UNSET
