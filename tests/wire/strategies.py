"""Strategies that make messages from their types, for the property tests."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as shape

from coordinator.wire.schema import PUBLISHED

# No U+0000 and no surrogates: what no frame may hold is tested on its own.
TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
NAME = "ABCabc019_.-"

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(TEXT, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXT, max_size=4), inner, max_size=3),
    max_leaves=6,
)
"""Any JSON value of modest size and depth."""


def messages(message: type[msgspec.Struct]) -> st.SearchStrategy[msgspec.Struct]:
    """Return a strategy for the values of a message type, its open fields as they are published."""
    kind = shape.type_info(message)
    assert isinstance(kind, shape.StructType)
    return _struct(kind)


def _struct(kind: shape.StructType) -> st.SearchStrategy[Any]:
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in kind.fields:
        given = PUBLISHED.get((kind.cls, field.name))
        if given is not None:
            values = _any_of(shape.type_info(given))
            if isinstance(field.type, shape.RawType):
                values = values.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))
        else:
            values = _any_of(field.type)
        needed = field.required or (given is not None and type(None) not in get_args(given))
        (required if needed else optional)[field.name] = values
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind.cls(**fields))


def _any_of(kind: shape.Type) -> st.SearchStrategy[Any]:
    match kind:
        case shape.StructType():
            return _struct(kind)
        case shape.UnionType():
            return st.one_of([_any_of(one) for one in kind.types])
        case shape.LiteralType():
            return st.sampled_from(kind.values)
        case shape.NoneType():
            return st.none()
        case shape.BoolType():
            return st.booleans()
        case shape.IntType():
            return st.integers(-(2**53) if kind.ge is None else kind.ge, 2**53 if kind.le is None else kind.le)
        case shape.FloatType():
            return st.floats(
                kind.ge if kind.gt is None else kind.gt,
                1e9 if kind.le is None else kind.le,
                exclude_min=kind.gt is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case shape.StrType():
            letters = TEXT if kind.pattern is None else st.sampled_from(NAME)
            low = (kind.min_length or 0) if kind.pattern is None else 1
            return st.text(letters, min_size=low, max_size=max(low, min(kind.max_length or 64, 64)))
        case shape.ListType():
            return st.lists(_any_of(kind.item_type), min_size=kind.min_length or 0, max_size=3)
        case shape.DictType(value_type=value) if not isinstance(value, shape.AnyType):
            return st.dictionaries(st.text(TEXT, max_size=4), _any_of(value), max_size=3)
        case shape.DictType() | shape.AnyType():
            return st.dictionaries(st.text(TEXT, max_size=4), plain, max_size=3)
        case _:
            raise TypeError(f"no strategy for {json.dumps(str(kind))}")
