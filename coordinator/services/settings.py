"""The settings of a service: their bounds, and how a change is merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from coordinator.errors import BadMessage
from coordinator.model import Enrol, ServiceSettings
from coordinator.services.contract import Plugin, schema_of

Seconds = Annotated[float, Meta(ge=1, le=1_000_000_000)]
"""At least 1, since expiry is looked for every half second; bounded, so that the database can add it to a time."""

Count = Annotated[int, Meta(ge=1, le=10_000)]


AgentName = Annotated[str, Meta(pattern=r"^[^\s/]{1,64}$(?!\n)")]
"""The name of a client's program, as it stands before the slash in `hello.agent`."""

Version = Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9}){0,7}$(?!\n)")]
"""Numbers with dots between them."""


class OfEveryService(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The settings of every service, with any plugin; the defaults are those of `model.ServiceSettings`."""

    enrol: Enrol
    discover: Literal["off", "on"]
    bucket_size: Count
    max_buckets_per_ask: Count
    max_held_buckets: Count
    newcomer_buckets: Count
    dead_after: Seconds
    release_after: Seconds
    max_claim_time: Seconds
    max_result_bytes: Annotated[int, Meta(ge=256, le=64 * 1024 * 1024)]
    max_parts: Annotated[int, Meta(ge=1, le=1_000_000)]
    recheck_after: Seconds | None
    idle_after: Seconds
    max_head_start: Annotated[float, Meta(ge=0, le=1_000_000_000)]
    items_per_minute: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None
    max_claimed_buckets: Annotated[int, Meta(ge=1, le=1_000_000)] | None
    agents: Annotated[dict[AgentName, Version], Meta(max_length=100)]
    agents_only: bool


_OF_EVERY_SERVICE: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(OfEveryService)}


_ABOUT: dict[str, str] = {
    "enrol": "Which items it takes: all of the catalogue, or only those that are named for it.",
    "discover": "Whether new keys that its results show become items.",
    "bucket_size": "Items of a bucket.",
    "max_buckets_per_ask": "Buckets that a client gets for one ask.",
    "max_held_buckets": "Buckets that a client may hold.",
    "newcomer_buckets": "Buckets that a client may hold before it has settled anything.",
    "dead_after": "Seconds without a settled item after which a bucket counts as dead.",
    "release_after": "Seconds after that, until a dead bucket goes to others.",
    "max_claim_time": "Seconds after which a bucket goes to others, whatever its progress.",
    "max_result_bytes": "Bytes of one result.",
    "max_parts": "Parts in which the result of one item may come.",
    "recheck_after": "Seconds after which a result is old, and its item is checked again.",
    "idle_after": "Seconds without work after which a client becomes inactive.",
    "max_head_start": "Seconds that the most urgent priority is worth.",
    "items_per_minute": "Items that all clients together are given in a minute.",
    "max_claimed_buckets": "Buckets that all clients together may hold.",
    "agents": "Names of clients' programs, each with the oldest version that gets work.",
    "agents_only": "Whether no other programs get work.",
}
"""Each setting in words, for those who change it in a form."""


def settings_schema(plugin: type[Plugin]) -> dict[str, Any]:
    """Return the JSON Schema of the settings of a service of that plugin, its own ones first; with their defaults."""
    own, common = schema_of(plugin.Settings), schema_of(OfEveryService)
    defaults = {**asdict(ServiceSettings()), **plugin.defaults}
    properties = {
        name: {**shape, "description": _ABOUT[name], "default": defaults[name]}
        for name, shape in common["properties"].items()
    }
    definitions = {**common.get("$defs", {}), **own.get("$defs", {})}
    return {
        "type": "object",
        "properties": {**own.get("properties", {}), **properties},
        "required": own.get("required", []),
        **({"$defs": definitions} if definitions else {}),
    }


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

    if after.get("discover") == "on" and plugin.discover is Plugin.discover:
        raise _wrong("discover", f"expected off, since the plugin {plugin.name} finds no keys in results")

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
