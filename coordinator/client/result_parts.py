"""Results split into parts that fit into a message, messages filled with results, and what is wrong with a result."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from coordinator.client.spool import SpooledResult

_SUBMIT_OVERHEAD = 512
"""Bytes of a submit beside its results, estimated generously."""

_encode = msgspec.json.Encoder().encode


class ResultTooLarge(ValueError):
    """Raised for a result that exceeds every message and cannot be sent in parts."""


def split_result(item: int, result: dict[str, Any], most: int) -> list[tuple[bytes, bool]]:
    """Encode one result as one or several parts, each with whether it settles the item.

    A result is one part if a message of `most` bytes carries it.  A longer list of `accounts` is sent in
    parts, `complete: false` but for the last: the server joins them.

    Raises:
        ResultTooLarge: it is longer and has no such list.
        TypeError: it has a value that JSON cannot express.
    """
    whole = {**result, "item": item}
    raw = _encode(whole)
    settles = result.get("complete", True) is not False
    if len(raw) <= most - _SUBMIT_OVERHEAD:
        return [(raw, settles)]

    accounts = result.get("accounts")
    if not isinstance(accounts, list) or len(accounts) < 2:
        raise ResultTooLarge(f"The result of item {item} has {len(raw)} bytes; a message takes {most}.")

    half = len(accounts) // 2
    first = {**result, "accounts": accounts[:half], "complete": False}
    rest = {**result, "accounts": accounts[half:]}
    return split_result(item, first, most) + split_result(item, rest, most)


def fill_message(waiting: Iterable[SpooledResult], most: int, *, singly: bool = False) -> Iterator[SpooledResult]:
    """Choose as many results as one message of `most` bytes takes, in order, each item once; one alone if `singly`."""
    room = most - _SUBMIT_OVERHEAD
    items: set[int] = set()
    for kept in waiting:
        room -= len(kept.raw) + 1
        if items and (room < 0 or singly):
            return
        if kept.item not in items:
            items.add(kept.item)
            yield kept


def reason_with_field(error: dict[str, Any]) -> object:
    """Return the reason of one of the server's `detail.errors`, after the field that it is about, if it names one."""
    reason = error.get("reason")
    path = re.fullmatch(r"\$\.results\[\d+\]\.?(.+)", str(error.get("path")))
    return reason if path is None else f"{path[1]}: {reason}"
