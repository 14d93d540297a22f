"""The dashboard's types have the names and the fields of the stats channel's types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import structs

from coordinator import dashboard
from coordinator.wire import frames, progress, stats, stats_clients

TYPES = Path(dashboard.__file__).parent / "source" / "src" / "wire.ts"

_INTERFACE = re.compile(r"^export interface (\w+)(?:<T>)? \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^  (\w+)\??: ", re.MULTILINE)

INTERFACES = {name: _FIELD.findall(body) for name, body in _INTERFACE.findall(TYPES.read_text(encoding="utf-8"))}

MODULES = (stats, stats_clients, progress, frames)

SHARED = {"WireError"}
"""The part of an error that all channels share; it has no type of its own."""


@pytest.mark.parametrize("name", sorted(INTERFACES.keys() - SHARED))
def test_an_interface_has_the_fields_of_its_type(name: str) -> None:
    message_type = next(found for module in MODULES if (found := getattr(module, name, None)) is not None)
    fields = [field.encode_name for field in structs.fields(message_type) if field.name != "ref"]
    assert INTERFACES[name] == fields


def test_a_union_has_the_values_of_its_type() -> None:
    text = TYPES.read_text(encoding="utf-8")
    for name in ("Topic", "Table", "Severity", "Health", "Step", "Span"):
        (union,) = re.findall(rf"^export type {name} = (.*);$", text, re.MULTILINE)
        assert re.findall(r'"(\w+)"', union) == list(getattr(stats, name).__args__)
