"""The items that `item.add` is given: each is read on its own, and taken or refused.  protocol.md, "item.add" """

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from coordinator.errors import BadMessage
from coordinator.keys import KeyForm, is_plain, read_key
from coordinator.store.item_copy import NewItem
from coordinator.wire.admin.items import Refusal
from coordinator.wire.codec import too_deep
from coordinator.wire.frames import MAX_DEPTH

MAX_ATTRIBUTES = 4096
"""Bytes that the attributes of one item take as JSON."""

DEPTH_OF_ITEMS = 2
"""Levels of a message in which its items are nested."""

ITEMS_A_TURN = 1000
"""Items that are read before others have a turn: about a millisecond."""


async def read_items(given: Sequence[object], form: KeyForm) -> tuple[dict[str, NewItem], list[Refusal]]:
    """Read the items of a request, by canonical key; of those of one key only the first counts.

    Raises:
        BadMessage: one nests too deep for a message.
    """
    taken: dict[str, NewItem] = {}
    refused: list[Refusal] = []
    for index, item in enumerate(given):
        if index % ITEMS_A_TURN == ITEMS_A_TURN - 1:
            await asyncio.sleep(0)

        try:
            row = _read_item(item, form)
        except ValueError as reason:
            named = item.get("key") if isinstance(item, dict) else None
            refused.append(Refusal(index, named if isinstance(named, str) else None, str(reason)))
        except RecursionError:
            path = f"$.items[{index}]"
            raise BadMessage(f"A message nests no deeper than {MAX_DEPTH}.", detail={"path": path}) from None
        else:
            taken.setdefault(row[1] or row[0], row)
    return taken, refused


def _read_item(given: object, form: KeyForm) -> NewItem:
    """Return an item as it is stored.

    Raises:
        ValueError: it is refused, with what was expected.
        RecursionError: it nests too deep.
    """
    if not isinstance(given, dict):
        raise ValueError("an item is an object with a key")  # noqa: TRY004 - one kind of refusal for all

    written = given.get("key")
    if not isinstance(written, str):
        raise ValueError("key: a string of 1 to 256 characters was expected")  # noqa: TRY004 - as above
    try:
        key, canonical = (written, None) if is_plain(written) else read_key(written, form)
    except ValueError as reason:
        raise ValueError(f"key: {reason}") from None
    if len(given) == 1:
        return key, canonical, "{}"
    if "item" in given:
        raise ValueError("item: that number is given by the server")

    attributes = {name: value for name, value in given.items() if name != "key"}
    text = msgspec.json.encode(attributes).decode()
    if too_deep(text, MAX_DEPTH - DEPTH_OF_ITEMS):
        raise RecursionError
    _refuse_numbers(attributes)
    if len(text) > MAX_ATTRIBUTES or len(text.encode()) > MAX_ATTRIBUTES:
        raise ValueError(f"the attributes take more than {MAX_ATTRIBUTES} bytes")
    return key, canonical, text


def _refuse_numbers(attributes: object) -> None:
    """Refuse numbers that not every JSON reader can hold, and that Postgres writes out in hundreds of digits.

    Raises: ValueError
    """
    stack = [attributes]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("a whole number takes more than 64 bits")
        elif isinstance(value, float) and value and not 1e-15 <= abs(value) <= 1e15:
            raise ValueError("a number beyond 1e15 or below 1e-15")
