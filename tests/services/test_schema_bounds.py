"""A schema of a generic service makes bounded work, or is refused with the reason."""

from __future__ import annotations

from time import process_time
from typing import Any

import pytest

from coordinator.errors import BadResult
from coordinator.services.generic import Generic, GenericSettings
from coordinator.services.schema_bounds import MAX_DEPTH, MAX_LOOKS

Schema = dict[str, Any]


def generic(schema: Schema) -> Generic:
    return Generic("service", GenericSettings(result_schema=schema))


def twice(reference: str) -> Schema:
    return {"allOf": [{"$ref": reference}, {"$ref": reference}]}


def chain(length: int) -> Schema:
    """Each definition names the next one twice."""
    definitions: Schema = {f"d{number}": twice(f"#/$defs/d{number + 1}") for number in range(length)}
    return {"$defs": {**definitions, f"d{length}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


def nested(keyword: str, levels: int) -> Schema:
    schema: Schema = {}
    for _ in range(levels):
        schema = {keyword: [schema]} if keyword == "allOf" else {keyword: schema}
    return schema


ANY_JSON: Schema = {
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "object", "additionalProperties": {"$ref": "#"}},
    ]
}

TREE: Schema = {
    "$ref": "#/$defs/a~1node",
    "$defs": {
        "a/node": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/a~1node"}, "right": {"$ref": "#/$defs/a~1node"}},
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (chain(30), f"more than {MAX_LOOKS} of its parts"),
        ({"$ref": "#"}, f"more than {MAX_LOOKS} of its parts"),
        ({"properties": {"a": twice("#")}}, f"more than {MAX_LOOKS} of its parts"),
        ({"patternProperties": {"^a": twice("#"), "b$": twice("#")}}, f"more than {MAX_LOOKS} of its parts"),
        ({"items": {"anyOf": [twice("#")] * 2}}, f"more than {MAX_LOOKS} of its parts"),
        ({"enum": ["x" * 100] * 1000}, "bytes as JSON"),
        ({"allOf": [{"pattern": str(number)} for number in range(101)]}, "101 patterns"),
        ({"patternProperties": {str(number): {} for number in range(101)}}, "101 patterns"),
        ({"pattern": "^((a{1,100}){1,100}){1,100}$"}, "regex"),
        ({"pattern": "(?=x)"}, "regex"),
        ({"$ref": "#elsewhere"}, "expected # or #/"),
        ({"$dynamicRef": "#elsewhere"}, "expected # or #/"),
        ({"$ref": "#/$defs/nowhere"}, "names nothing"),
        (nested("items", 5000), "this is no JSON Schema that can be used"),
        (nested("allOf", 5000), "this is no JSON Schema that can be used"),
    ],
)
def test_a_schema_that_would_make_unbounded_work_is_refused_at_once(schema: Schema, reason: str) -> None:
    begun = process_time()
    with pytest.raises(ValueError, match=reason):
        generic(schema)
    assert process_time() - begun < 2


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (chain(6), 7, "x"),
        (ANY_JSON, {"a": [{"b": [1, "x", None]}]}, None),
        (TREE, {"left": {"right": {}}}, {"left": {"right": 1}}),
        ({"properties": {f"p{number}": {"type": "integer"} for number in range(1500)}}, {"p1": 1}, {"p1": "x"}),
        ({"properties": {"x": {"enum": [f"v{number}" for number in range(5000)]}}}, {"x": "v7"}, {"x": "w"}),
        ({"properties": {"pattern": {"type": "string"}, "$ref": {"const": 1}}}, {"$ref": 1}, {"pattern": 1}),
        ({"prefixItems": [{"type": "integer"}, True], "items": False}, [1, "x"], ["x"]),
    ],
)
def test_schemas_that_people_write_are_taken(schema: Schema, good: object, bad: object) -> None:
    validator = generic(schema).validator
    assert validator.is_valid(good)
    assert bad is None or not validator.is_valid(bad)


def test_no_text_of_a_client_makes_a_pattern_slow() -> None:
    plugin = generic({"properties": {"word": {"pattern": "^(a+)+$"}}})
    word = "a" * 500_000 + "b"
    begun = process_time()
    with pytest.raises(BadResult):
        plugin.reader().read(f'[{{"item": 1, "word": "{word}"}}]'.encode())
    assert process_time() - begun < 2


def test_the_deepest_value_of_the_dearest_schema_is_read_soon() -> None:
    # 900 parts apply to each place, on all levels.
    schema: Schema = {
        "allOf": [{"additionalProperties": {"type": "object"}}] * 449,
        "additionalProperties": {"$ref": "#"},
    }
    value: Schema = {}
    for _ in range(MAX_DEPTH):
        value = {"a": value}
    validator = generic(schema).validator
    begun = process_time()
    assert all(validator.is_valid(value) for _ in range(180))
    assert process_time() - begun < 2
