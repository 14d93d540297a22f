"""Copying results into their table, in the binary format of COPY.

By hand, since asyncpg's encoding of records takes five times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from coordinator.model import ClaimNumber, ItemId, ServiceId
from coordinator.store.pool import Connection

# Of each row the number of columns, then of each column its length and itself.
_COPY_BEGIN = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END = b"\xff\xff"
_ITEM = struct.Struct(">6sq")
_COLUMNS_AND_LENGTH = struct.pack(">hi", 4, 8)
_ORIGIN = struct.Struct(">iiiq")
_VALUE = struct.Struct(">ic")
_JSONB = b"\x01"


def encode_rows(service: ServiceId, claim: ClaimNumber, rows: Iterable[tuple[ItemId, str]]) -> bytes:
    """Encode (item, value as JSON text) rows of one claim; many values are the same, and are encoded once."""
    origin = _ORIGIN.pack(4, service, 8, claim)
    values: dict[str, bytes] = {}
    parts = []

    for item, value in rows:
        binary = values.get(value)
        if binary is None:
            text = value.encode()
            binary = values[value] = origin + _VALUE.pack(len(text) + 1, _JSONB) + text
        parts.append(_ITEM.pack(_COLUMNS_AND_LENGTH, item))
        parts.append(binary)

    return b"".join(parts)


async def copy_results(db: Connection, encoded: Iterable[bytes]) -> None:
    """Store encoded rows, as of the transaction's time."""
    # `at` is the transaction's time, which is what the column has by default.
    await db.copy_to_table(
        "result",
        columns=("item_id", "service_id", "claim_id", "value"),
        format="binary",
        source=bytearray().join((_COPY_BEGIN, *encoded, _COPY_END)),  # bytes would be a path
    )
