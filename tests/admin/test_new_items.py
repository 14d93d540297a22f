"""An item of `item.add` is taken or refused on its own."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.admin.new_items import MAX_ATTRIBUTES, NewItem, read_items


def test_good_items_are_taken_and_of_one_key_the_first() -> None:
    taken, refused = read_items([{"key": "a", "n": 1}, {"key": "b"}, {"key": "a", "n": 2}])
    assert taken == [NewItem("a", {"n": 1}), NewItem("b", {})]
    assert refused == []


@pytest.mark.parametrize(
    ("given", "key", "reason"),
    [
        ("a", None, "an item is an object with a key"),
        ({}, None, "key: a string of 1 to 256 characters was expected"),
        ({"key": 5}, None, "key: a string of 1 to 256 characters was expected"),
        ({"key": ""}, "", "key: a string of 1 to 256 characters was expected"),
        ({"key": "k" * 257}, "k" * 257, "key: a string of 1 to 256 characters was expected"),
        ({"key": "a\nb"}, "a\nb", "key: control characters are refused"),
        ({"key": "a\u2028b"}, "a\u2028b", "key: control characters are refused"),
        ({"key": "a", "item": 1}, "a", "item: that number is given by the server"),
        ({"key": "a", "n": 2**63}, "a", "a whole number takes more than 64 bits"),
        ({"key": "a", "deep": [{"n": -(2**63) - 1}]}, "a", "a whole number takes more than 64 bits"),
        ({"key": "a", "n": 1e16}, "a", "a number beyond 1e15 or below 1e-15"),
        ({"key": "a", "n": 1e-16}, "a", "a number beyond 1e15 or below 1e-15"),
        ({"key": "a", "text": "t" * MAX_ATTRIBUTES}, "a", "the attributes take more than 4096 bytes"),
    ],
)
def test_a_bad_item_is_named_with_its_place_and_the_others_are_taken(given: Any, key: str | None, reason: str) -> None:
    taken, refused = read_items([{"key": "good"}, given])
    assert [item.key for item in taken] == ["good"]
    assert [(one.index, one.key, one.reason) for one in refused] == [(1, key, reason)]


@pytest.mark.parametrize("number", [0, 0.0, 2**63 - 1, -(2**63), 1e15, -1e-15, True])
def test_numbers_that_every_reader_can_hold_are_taken(number: float) -> None:
    taken, refused = read_items([{"key": "a", "n": number}])
    assert (len(taken), refused) == (1, [])
