"""Calls of a plugin's hooks that need no database; those of plugins from outside are made in `plugin_program.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from coordinator.errors import BadResult, PeerError
from coordinator.keys import KeyForm
from coordinator.model import ItemId, JsonObject
from coordinator.services.contract import Item, Plugin
from coordinator.services.reader import DecodedResults, Reader, ResultErrors

MAX_DISCOVERED = 10_000
"""Keys that one result may show; those behind them are left alone."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it goes to the process of a plugin; `deadline` in seconds."""

    plugin: str
    service: str
    settings: JsonObject
    key_form: KeyForm
    hook: Callable[..., Any]
    arguments: tuple[Any, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a call that went well."""

    value: Any


@dataclass(frozen=True, slots=True)
class Declined:
    """The error by which a plugin refuses what it was given."""

    kind: type[PeerError]
    message: str
    detail: JsonObject | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The plugin failed: the exception in a few words, and with its traceback."""

    error: str
    traceback: str
    out_of_memory: bool


# Each takes the plugin and its reader first.


def select(plugin: Plugin, _: Reader, items: Sequence[Item]) -> list[ItemId]:
    """Return the items that the service has to check."""
    chosen = []
    for item in items:
        answer = plugin.select(item)
        if not isinstance(answer, bool):
            raise TypeError(f"select answered {answer!r}, not True or False")
        if answer:
            chosen.append(item.item)
    return chosen


def read(_: Plugin, reader: Reader, raw: bytes) -> DecodedResults:
    """Decode the results of one submit.

    Raises:
        BadMessage, BadResult: as `Reader.read`.
    """
    return reader.read(raw)


def check(plugin: Plugin, _: Reader, rows: DecodedResults, items: Mapping[ItemId, Item]) -> ResultErrors:
    """Return the results that the plugin refuses."""
    errors = ResultErrors(plugin.service)
    for place, (item, result) in enumerate(rows.decoded):
        if item not in items:
            continue

        answer = None
        try:
            answer = plugin.check(items[item], result)  # type: ignore[func-returns-value]  # it is checked below
        except (ValueError, BadResult) as refusal:
            errors.add(item, f"$.results[{place}]", str(refusal))
        if answer is not None:
            raise TypeError(f"check answered {answer!r}; it raises or returns nothing")
    return errors


def discover(plugin: Plugin, _: Reader, results: Sequence[tuple[Item, Any]]) -> list[tuple[ItemId, list[str]]]:
    """Return the keys that each of these results shows, some thousands at most."""
    found = []
    for item, result in results:
        keys = list(islice(plugin.discover(item, result), MAX_DISCOVERED))
        if not all(isinstance(key, str) for key in keys):
            raise TypeError("discover answered something else than texts")
        found.append((item.item, keys))
    return found


def profile_fault(plugin: Plugin, _: Reader, profile: JsonObject) -> str | None:
    """Return what is wrong with a profile, by its shape; None if nothing is."""
    try:
        msgspec.convert(profile, plugin.Profile)
    except msgspec.ValidationError as failure:
        return str(failure)
    return None
