"""Types of fields that requests of several nouns share, and the tag of all their answers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from coordinator.wire.frames import Answer

Keys = Annotated[list[str], Meta(min_length=1, max_length=10_000)]
"""Keys of items."""

Priority = Annotated[int, Meta(ge=0, le=200)]
"""100 is normal; lower is sooner."""

After = Annotated[str, Meta(max_length=512)]
"""The `next` of the page before."""


class Ok(Answer, tag="ok", kw_only=True):
    """The answer to a request that was carried out; its fields stand beside `type` and `ref`.

    No field of an answer has a default, so that each is always sent, be it null, empty or zero.
    """
