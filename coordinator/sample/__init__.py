"""Real public accounts to try the program on; README.md beside this file names the sources."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple


class SampleAccount(NamedTuple):
    """An account of the sample; its id is not known for some."""

    screen_name: str
    account_id: int | None


class SampleFollow(NamedTuple):
    """A pair of accounts, of which the first follows the second; capitals may differ from `accounts()`."""

    follower: str
    followed: str


def accounts() -> Iterator[SampleAccount]:
    """Yield 1,988 accounts of US politicians, each screen name once."""
    for row in _rows("accounts.csv"):
        yield SampleAccount(row["screen_name"], int(row["account_id"]) if row["account_id"] else None)


def follows() -> Iterator[SampleFollow]:
    """Yield 3,859 pairs among 91 US senators of 2017."""
    for row in _rows("follows.csv"):
        yield SampleFollow(row["follower"], row["followed"])


def _rows(name: str) -> Iterator[dict[str, str]]:
    with files(__package__).joinpath(name).open(encoding="utf-8") as file:
        yield from csv.DictReader(file)
