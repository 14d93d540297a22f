"""An item of `item.add` is taken or refused on its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.admin.new_items import ITEMS_A_TURN, MAX_ATTRIBUTES, read_items


async def test_good_items_are_taken_and_of_one_key_the_first() -> None:
    taken, refused = await read_items([{"key": "a", "n": 1}, {"key": "B"}, {"key": "@A", "n": 2}], "handle")
    assert taken == {"a": ("a", None, '{"n":1}'), "b": ("B", "b", "{}")}
    assert refused == []


@pytest.mark.parametrize(
    ("given", "key", "reason"),
    [
        ("a", None, "an item is an object with a key"),
        ({}, None, "key: a string of 1 to 256 characters was expected"),
        ({"key": 5}, None, "key: a string of 1 to 256 characters was expected"),
        ({"key": ""}, "", "key: a string of 1 to 256 characters was expected"),
        ({"key": "k" * 257}, "k" * 257, "key: a string of 1 to 256 characters was expected"),
        ({"key": "a\nb"}, "a\nb", "key: the invisible character U+000A CONTROL CHARACTER is refused"),
        ({"key": "a\u2028b"}, "a\u2028b", "key: the invisible character U+2028 LINE SEPARATOR is refused"),
        ({"key": "a", "item": 1}, "a", "item: that number is given by the server"),
        ({"key": "a", "n": 2**63}, "a", "a whole number takes more than 64 bits"),
        ({"key": "a", "deep": [{"n": -(2**63) - 1}]}, "a", "a whole number takes more than 64 bits"),
        ({"key": "a", "n": 1e16}, "a", "a number beyond 1e15 or below 1e-15"),
        ({"key": "a", "n": 1e-16}, "a", "a number beyond 1e15 or below 1e-15"),
        ({"key": "a", "text": "t" * MAX_ATTRIBUTES}, "a", "the attributes take more than 4096 bytes"),
    ],
)
async def test_a_bad_item_is_named_with_its_place_and_the_others_are_taken(
    given: Any, key: str | None, reason: str
) -> None:
    taken, refused = await read_items([{"key": "good"}, given], "handle")
    assert list(taken) == ["good"]
    assert [(one.index, one.key, one.reason) for one in refused] == [(1, key, reason)]


@pytest.mark.parametrize("number", [0, 0.0, 2**63 - 1, -(2**63), 1e15, -1e-15, True])
async def test_numbers_that_every_reader_can_hold_are_taken(number: float) -> None:
    taken, refused = await read_items([{"key": "a", "n": number}], "exact")
    assert (len(taken), refused) == (1, [])


async def test_others_have_a_turn_while_many_are_read() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    taken, _ = await read_items([{"key": str(number)} for number in range(5 * ITEMS_A_TURN)], "exact")
    task.cancel()
    assert (len(taken), turns) == (5 * ITEMS_A_TURN, 5)
