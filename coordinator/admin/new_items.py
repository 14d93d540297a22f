"""The items that `item.add` is given: each is read on its own, and taken or refused.  protocol.md, "item.add" """

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from coordinator.model import JsonObject
from coordinator.wire.admin.items import Refusal

MAX_ATTRIBUTES = 4096
"""Bytes that the attributes of one item take as JSON."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item that passed."""

    key: str
    attributes: JsonObject


def read_items(given: Sequence[object]) -> tuple[list[NewItem], list[Refusal]]:
    """Read the items of a request; of those of one key only the first."""
    taken: dict[str, NewItem] = {}
    refused: list[Refusal] = []
    for index, item in enumerate(given):
        try:
            read = _read_item(item)
        except ValueError as reason:
            key = item.get("key") if isinstance(item, dict) else None
            refused.append(Refusal(index, key if isinstance(key, str) else None, str(reason)))
        else:
            taken.setdefault(read.key, read)
    return list(taken.values()), refused


def _read_item(given: object) -> NewItem:
    """Raises: ValueError, with what was expected."""
    if not isinstance(given, dict):
        raise ValueError("an item is an object with a key")  # noqa: TRY004 - one kind of refusal for all

    key = given.get("key")
    if not isinstance(key, str) or not 1 <= len(key) <= 256:
        raise ValueError("key: a string of 1 to 256 characters was expected")
    if _CONTROL.search(key):
        raise ValueError("key: control characters are refused")
    if "item" in given:
        raise ValueError("item: that number is given by the server")

    attributes = {name: value for name, value in given.items() if name != "key"}
    _refuse_numbers(attributes)
    if len(msgspec.json.encode(attributes)) > MAX_ATTRIBUTES:
        raise ValueError(f"the attributes take more than {MAX_ATTRIBUTES} bytes")
    return NewItem(key, attributes)


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
