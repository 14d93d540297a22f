"""Times and cursors as they stand in messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from coordinator.errors import BadMessage
from coordinator.wire.paging import cursor, moment_of, number, time_text, two_numbers

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_time_is_told_in_utc_and_read_back() -> None:
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    assert time_text(east) == "2026-01-31T12:00:00Z"
    assert moment_of("2026-01-31T12:00:00Z", "$.since") == NOON
    assert moment_of("2026-01-31T14:00:00+02:00", "$.since") == NOON
    assert moment_of("2026-01-31T12:00:00", "$.since") == NOON


@pytest.mark.parametrize("text", ["", "late", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00"])
def test_what_is_no_time_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(BadMessage) as refusal:
        moment_of(text, "$.since")
    assert refusal.value.detail == {"path": "$.since"}


def test_a_cursor_comes_apart_from_behind() -> None:
    assert cursor("a|b|3", 2) == ["a|b", "3"]
    assert two_numbers("12|3") == (12, 3)
    assert two_numbers(None) == (0, 0)


@pytest.mark.parametrize("after", ["", "1", "1|", "1|x", "-1|2", "1|" + "9" * 19, "1|2|3"])
def test_what_is_no_cursor_of_two_numbers_is_refused(after: str) -> None:
    with pytest.raises(BadMessage) as refusal:
        two_numbers(after)
    assert refusal.value.detail == {"path": "$.after"}


def test_a_number_has_at_most_18_digits() -> None:
    assert number("9" * 18) == 10**18 - 1
    with pytest.raises(BadMessage):
        number("9" * 19)
