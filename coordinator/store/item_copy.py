"""Copying new items into the catalogue, in the binary format of COPY, by hand as the results are."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence

from coordinator.model import ItemId
from coordinator.store.pool import Connection
from coordinator.store.result_copy import COPY_BEGIN, COPY_END

NewItem = tuple[str, str | None, str]
"""The key of an item, its canonical form where that is another (`keys.read_key`), and its attributes as JSON."""

ITEMS_A_PIECE = 1000
"""Items that are encoded before others have a turn: about a millisecond."""

_HEAD = struct.Struct(">hiqi")
"""The number of columns; the length of the first and itself; the length of the second."""

_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_JSONB = b"\x01"


async def copy_items(db: Connection, ids: Sequence[ItemId], items: Sequence[NewItem]) -> None:
    """Store items under these ids; a transaction that does not commit has stored none."""
    columns = ("item_id", "key", "canonical", "attributes")
    await db.copy_to_table("item", columns=columns, format="binary", source=_pieces(ids, items))


async def _pieces(ids: Sequence[ItemId], items: Sequence[NewItem]) -> AsyncIterator[bytes]:
    yield COPY_BEGIN
    for start in range(0, len(ids), ITEMS_A_PIECE):
        yield encode_items(ids[start : start + ITEMS_A_PIECE], items[start : start + ITEMS_A_PIECE])
        await asyncio.sleep(0)
    yield COPY_END


def encode_items(ids: Sequence[ItemId], items: Sequence[NewItem]) -> bytes:
    """Encode rows of the catalogue; attributes that are the same are encoded once."""
    encoded: dict[str, bytes] = {}
    parts = []

    for item, (key, canonical, attributes) in zip(ids, items, strict=True):
        name = key.encode()
        parts.append(_HEAD.pack(4, 8, item, len(name)))
        parts.append(name)
        parts.append(_NULL if canonical is None else _text(canonical))

        binary = encoded.get(attributes)
        if binary is None:
            text = _JSONB + attributes.encode()
            binary = encoded[attributes] = _LENGTH.pack(len(text)) + text
        parts.append(binary)

    return b"".join(parts)


def _text(value: str) -> bytes:
    binary = value.encode()
    return _LENGTH.pack(len(binary)) + binary
