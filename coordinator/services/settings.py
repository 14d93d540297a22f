"""The settings of a service: their bounds, and how a change is merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from coordinator.errors import BadMessage
from coordinator.services.contract import Plugin

Seconds = Annotated[float, Meta(ge=1, le=1_000_000_000)]
"""At least 1, since expiry is looked for every half second; bounded, so that the database can add it to a time."""

Count = Annotated[int, Meta(ge=1, le=10_000)]


class OfEveryService(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The settings of every service, with any plugin; the defaults are those of `model.ServiceSettings`."""

    bucket_size: Count
    max_buckets_per_ask: Count
    max_held_buckets: Count
    dead_after: Seconds
    release_after: Seconds
    recheck_after: Seconds | None
    idle_after: Seconds
    max_head_start: Annotated[float, Meta(ge=0, le=1_000_000_000)]


_OF_EVERY_SERVICE: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(OfEveryService)}


def merged(plugin: type[Plugin], current: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a change into the settings that differ from the defaults; null sets one back to its default.

    Raises:
        BadMessage: a setting is unknown, out of bounds or missing; `detail.path` names it.
    """
    own: dict[str, Any] = {field.encode_name: field for field in msgspec.structs.fields(plugin.Settings)}
    after = dict(current)

    for name, value in given.items():
        if name not in _OF_EVERY_SERVICE and name not in own:
            known = ", ".join([*_OF_EVERY_SERVICE, *own])
            raise _wrong(name, f"there is no such setting; expected one of {known}")
        if value is None:
            after.pop(name, None)
            continue

        try:
            msgspec.convert(value, _OF_EVERY_SERVICE[name] if name in _OF_EVERY_SERVICE else own[name].type)
        except msgspec.ValidationError as failure:
            reason, _, inner = str(failure).partition(" - at `$")
            raise _wrong(name + inner.rstrip("`"), reason) from None
        after[name] = value

    for name, field in own.items():
        if field.required and name not in after:
            raise _wrong(name, f"the plugin {plugin.name} needs it")

    try:
        configured(plugin, "", after)
    except ValueError as failure:
        name = next(iter(own), "")
        raise _wrong(name, str(failure)) from None
    return after


def configured(plugin: type[Plugin], service: str, settings: Mapping[str, Any]) -> Plugin:
    """Make the plugin of one service, with its own settings.

    Raises:
        ValueError: the plugin refuses them.
    """
    names = {field.encode_name for field in msgspec.structs.fields(plugin.Settings)}
    own = {name: value for name, value in settings.items() if name in names}
    return plugin(service, msgspec.convert(own, plugin.Settings))


def _wrong(name: str, reason: str) -> BadMessage:
    return BadMessage(f"settings.{name}: {reason}.", detail={"path": f"$.settings.{name}"})
