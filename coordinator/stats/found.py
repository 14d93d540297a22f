"""The rows of one page of a table, as they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of one page as JSON; `next` is where the following page begins, None at the end."""

    rows: bytes
    count: int
    next: str | None
    total: int | UnsetType = UNSET

    @classmethod
    def of(cls, page: Sequence[Struct], following: str | None, total: int | UnsetType = UNSET) -> Found:
        """Encode the rows of a page, once for all who ask for it."""
        return cls(msgspec.json.encode(page), len(page), following, total)

    def encoded(self, limit: int) -> list[Any]:
        """Return the rows up to a limit, as a field of an answer."""
        if self.count > limit:
            return msgspec.json.decode(self.rows, type=list[Raw])[:limit]
        return cast(list[Any], Raw(self.rows))  # which goes into the answer as it is
