"""Bounds of the work that a JSON Schema makes, whatever value it is held against.

The engine matches patterns in linear time and looks at each place of a value once for each subschema that applies to
it.  How many apply is what references multiply: thirty definitions that each name the next one twice make a billion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec

MAX_BYTES = 64 * 1024
"""Bytes of a schema as JSON; it is in the answer to every `services`, too."""

MAX_LOOKS = 1000
"""Subschemas that apply to one place of a value."""

MAX_PATTERNS = 100
"""Patterns of one schema."""

MAX_PATTERN_BYTES = 1024 * 1024
"""Bytes of one pattern, compiled."""

MAX_DEPTH = 16
"""Levels of a value: no frame has more."""

MAX_STEPS = 50_000
"""Places that are looked into to find that out."""

_HERE_ONE = ("not", "if", "then", "else")
_HERE_LISTS = ("allOf", "anyOf", "oneOf")
_HERE_MAPS = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ELEMENTS = ("items", "prefixItems", "additionalItems", "contains", "unevaluatedItems")
_ANY_PROPERTY = ("additionalProperties", "unevaluatedProperties", "propertyNames")

Schema = dict[str, Any]


def refuse_unbounded(schema: Schema) -> None:
    """Check that a schema makes bounded work.

    Raises:
        ValueError: it does not; the message says why.
    """
    size = len(msgspec.json.encode(schema))
    if size > MAX_BYTES:
        raise ValueError(f"it has {size} bytes as JSON, {MAX_BYTES} at most are taken")
    patterns = _count_patterns(schema)
    if patterns > MAX_PATTERNS:
        raise ValueError(f"it has {patterns} patterns, {MAX_PATTERNS} at most are taken")
    _Walk(schema).look([schema])


class _Walk:
    """Goes through all places that a value may have, with the subschemas that apply there."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._seen: set[tuple[int, frozenset[tuple[int, int]]]] = set()

    def look(self, applying: list[Schema], depth: int = 0) -> None:
        """Look at one place and, level by level, at those below it."""
        place = (depth, frozenset(Counter(map(id, applying)).items()))
        if depth > MAX_DEPTH or not applying or place in self._seen:
            return
        self._seen.add(place)
        if len(self._seen) > MAX_STEPS:
            raise ValueError("its references make too many different places")

        here = self._all_here(applying)
        self.look([child for schema in here for child in _below(schema, _ELEMENTS)], depth + 1)

        any_property = [child for schema in here for child in _below(schema, _ANY_PROPERTY)]
        any_property += [child for schema in here for child in _values(schema.get("patternProperties"))]
        self.look(any_property, depth + 1)
        named = [properties for schema in here if isinstance(properties := schema.get("properties"), dict)]
        for name in dict.fromkeys(name for properties in named for name in properties):
            own = [properties[name] for properties in named if isinstance(properties.get(name), dict)]
            self.look(any_property + own, depth + 1)

    def _all_here(self, applying: list[Schema]) -> list[Schema]:
        """Return the schemas that apply to a place, with all that they apply to the same place."""
        found, queue = [], list(applying)
        while queue:
            schema = queue.pop()
            found.append(schema)
            if len(found) > MAX_LOOKS:
                raise ValueError(
                    f"more than {MAX_LOOKS} of its parts apply to one place of a value, by its references to itself"
                )
            queue.extend(_below(schema, (*_HERE_ONE, *_HERE_LISTS)))
            for keyword in _HERE_MAPS:
                queue.extend(_values(schema.get(keyword)))
            for keyword in _REFERENCES:
                if isinstance(reference := schema.get(keyword), str):
                    queue.extend(self._named(reference))
        return found

    def _named(self, reference: str) -> list[Schema]:
        """Return what a reference names; nothing where that is `true` or `false`."""
        if reference != "#" and not reference.startswith("#/"):
            raise ValueError(
                f"the reference {reference[:100]!r}: expected # or #/ and the way to a part of this schema"
            )
        found: Any = self._root
        for step in reference.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (LookupError, TypeError, ValueError):
                raise ValueError(f"the reference {reference[:100]!r} names nothing") from None
        return [found] if isinstance(found, dict) else []


def _below(schema: Schema, keywords: tuple[str, ...]) -> Iterator[Schema]:
    """The subschemas at these keywords, be they one or a list."""
    for keyword in keywords:
        value = schema.get(keyword)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                yield child


def _values(subschemas: object) -> Iterator[Schema]:
    """The subschemas that stand in an object, whatever their names."""
    if isinstance(subschemas, dict):
        yield from (child for child in subschemas.values() if isinstance(child, dict))


def _count_patterns(schema: object) -> int:
    """Count what may be a pattern, wherever it stands."""
    if isinstance(schema, list):
        return sum(map(_count_patterns, schema))
    if not isinstance(schema, dict):
        return 0
    by_name = schema.get("patternProperties")
    count = len(by_name) if isinstance(by_name, dict) else 0
    return count + isinstance(schema.get("pattern"), str) + sum(map(_count_patterns, schema.values()))
