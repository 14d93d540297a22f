"""A service without code: the shape of its results is given as a JSON Schema when it is added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jsonschema_rs
import msgspec

from coordinator.model import ItemId
from coordinator.services.contract import Plugin
from coordinator.services.reader import (
    MAX_EXPLAINED,
    MAX_LABEL_LENGTH,
    MAX_LABELS,
    DecodedResults,
    Raw,
    Reader,
    ResultErrors,
    refuse_repeated_items,
)
from coordinator.services.schema_bounds import MAX_PATTERN_BYTES, refuse_unbounded


class GenericSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`result_schema` is the JSON Schema of a result without `item`.

    `label_field` is the field of a result whose value is its kind; its values must be few.
    """

    result_schema: Annotated[dict[str, Any], msgspec.Meta(description="JSON Schema of a result without `item`.")]
    label_field: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=256,
                description="Field of a result whose value, true or false or one of an enum, is the result's kind: "
                "kinds are counted, and compared between clients.",
            ),
        ]
        | None
    ) = None


class AnyResult(msgspec.Struct, frozen=True):
    """A result of any fields; its shape is in the settings."""


class AnyProfile(msgspec.Struct, frozen=True):
    """A profile of any fields."""


class Generic(Plugin):
    """A check whose results a JSON Schema describes."""

    name = "generic"
    title = "Generic check"
    Profile = AnyProfile
    Result = AnyResult
    Settings = GenericSettings

    def __init__(self, service: str, settings: GenericSettings) -> None:
        super().__init__(service, settings)
        self.validator = _validator(settings.result_schema)
        if settings.label_field is not None:
            _check_labels(settings.result_schema, settings.label_field)

    @property
    def labels(self) -> bool:
        return self.settings.label_field is not None

    def label(self, result: Mapping[str, Any]) -> str:
        return _label(self.settings.label_field, result.get(self.settings.label_field))

    def reader(self) -> Reader:
        return SchemaReader(self)

    def result_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = self.settings.result_schema
        return schema


class SchemaReader(Reader):
    """Decodes results, and validates them with a JSON Schema."""

    def __init__(self, plugin: Generic) -> None:
        super().__init__(plugin)
        self._validator = plugin.validator

    def _decoder(self) -> Callable[[Raw], list[Any]]:
        return msgspec.json.Decoder(list[dict[str, Any]]).decode

    def read(self, raw: Raw) -> DecodedResults:
        items = self.items(raw)
        rows: list[tuple[ItemId, str]] = []
        values: list[dict[str, Any]] = []
        errors = ResultErrors(self.plugin.service)

        for place, (item, result) in enumerate(zip(items, self._generic(raw), strict=True)):
            value = {name: field for name, field in result.items() if name != "item"}
            if self._validator.is_valid(value):
                rows.append((item, self._encode(value).decode()))
                values.append(value)
            elif errors.full:
                errors.count()
            else:
                error = next(iter(self._validator.iter_errors(value)))
                steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
                errors.add(item, f"$.results[{place}]{''.join(steps)}", error.message)
            if errors and place >= MAX_EXPLAINED:
                break

        if errors:
            raise errors.error()
        refuse_repeated_items(items)
        return DecodedResults(rows, labels=self._labels([value for _, value in rows], values))


def _label(field: str, value: object) -> str:
    """Return the kind of a result: a text as it is, what is no text with the field's name."""
    return value if isinstance(value, str) else f"{field}: {msgspec.json.encode(value).decode()}"


def _values_of(shape: dict[str, Any]) -> Sequence[object] | None:
    """Return the values that a schema allows, where they are listed or a boolean's."""
    return (True, False) if shape.get("type") == "boolean" else shape.get("enum")


def _check_labels(schema: dict[str, Any], field: str) -> None:
    """Check that the values of a field are few and short, whatever a client submits.

    Raises:
        ValueError
    """
    shape = schema.get("properties", {}).get(field)
    values = _values_of(shape) if isinstance(shape, dict) else None
    if not values or len(values) >= MAX_LABELS:
        few = f"its type boolean, or an enum of less than {MAX_LABELS} values"
        raise ValueError(f"label_field: result_schema must give {field!r} {few}")
    if any(len(_label(field, value)) > MAX_LABEL_LENGTH for value in [*values, None]):
        raise ValueError(f"label_field: a kind has up to {MAX_LABEL_LENGTH} characters")


def _validator(schema: dict[str, Any]) -> Any:
    """Return the validator of a JSON Schema.

    Raises:
        ValueError: it is not a JSON Schema, refers to one elsewhere, or would make unbounded work.
    """

    def refuse_reference(uri: str) -> Any:
        raise ValueError(f"{uri} is not fetched: a schema is whole in itself")

    try:
        refuse_unbounded(schema)
        return jsonschema_rs.validator_for(
            schema,
            retriever=refuse_reference,
            # This engine matches patterns in linear time for any text of a client.
            pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES, dfa_size_limit=MAX_PATTERN_BYTES),
        )
    except (
        jsonschema_rs.ValidationError,
        jsonschema_rs.ReferencingError,
        ValueError,
        TypeError,
        RecursionError,
    ) as failure:
        message = getattr(failure, "message", None) or str(failure)
        raise ValueError(f"this is no JSON Schema that can be used: {message.splitlines()[0][:300]}") from None
