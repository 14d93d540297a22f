"""A service that needs no code: the shape of its result is given as JSON Schema when it is added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema_rs
import msgspec

from coordinator.model import ItemId
from coordinator.services.contract import Plugin
from coordinator.services.reader import Raw, Reader, Rows, bad_results, refuse_twice

MOST_ERRORS = 100
"""Bad results that are named in one refusal."""


class GenericSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`result_schema` is the JSON Schema of a result without `item`."""

    result_schema: dict[str, Any]


class AnyResult(msgspec.Struct, frozen=True):
    """Its shape stands in the settings."""


class AnyProfile(msgspec.Struct, frozen=True):
    """Whatever a client wants to tell."""


class Generic(Plugin):
    """Any check whose result a JSON Schema describes."""

    name = "generic"
    title = "Generic check"
    Profile = AnyProfile
    Result = AnyResult
    Settings = GenericSettings

    def __init__(self, service: str, settings: GenericSettings) -> None:
        super().__init__(service, settings)
        self.validator = _validator(settings.result_schema)

    def reader(self) -> Reader:
        return SchemaReader(self)

    def result_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = self.settings.result_schema
        return schema


class SchemaReader(Reader):
    """Reads results by a JSON Schema."""

    def __init__(self, plugin: Generic) -> None:
        super().__init__(plugin)
        self._validator = plugin.validator

    def _decoder(self) -> Callable[[Raw], list[Any]]:
        return msgspec.json.Decoder(list[dict[str, Any]]).decode

    def read(self, raw: Raw) -> Rows:
        items = self.items(raw)
        rows: list[tuple[ItemId, str]] = []
        errors: list[dict[str, Any]] = []
        for place, (item, one) in enumerate(zip(items, self._generic(raw), strict=True)):
            value = {name: field for name, field in one.items() if name != "item"}
            wrong = next(iter(self._validator.iter_errors(value)), None)
            if wrong is None:
                rows.append((ItemId(item), self._encode(value).decode()))
            elif len(errors) < MOST_ERRORS:
                path = f"$.results[{place}]" + "".join(
                    f"[{step}]" if isinstance(step, int) else f".{step}" for step in wrong.instance_path
                )
                errors.append({"item": item, "reason": wrong.message[:500], "path": path})
        if errors:
            raise bad_results(self.plugin.service, errors)
        refuse_twice(rows)
        return Rows(rows)


def _validator(schema: dict[str, Any]) -> Any:
    """Raises: ValueError, if that is no JSON Schema that can be used here."""

    def nothing_elsewhere(uri: str) -> Any:
        raise ValueError(f"{uri} is not fetched: a schema is whole in itself")

    try:
        return jsonschema_rs.validator_for(
            schema,
            retriever=nothing_elsewhere,
            # Patterns run in linear time, whatever a client sends.
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as failure:
        message = getattr(failure, "message", None) or str(failure)
        raise ValueError(f"this is no JSON Schema that can be used: {message.splitlines()[0][:300]}") from None
