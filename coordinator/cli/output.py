"""The output of commands: tables for people, JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coordinator.printable import printable_json, printable_lines

_MAX_INLINE_FIELDS = 8
"""Fields that fit into a table's row, or into one line for a nested object; an object with more is shown by itself."""


def write_json(value: object) -> None:
    """Write one JSON value on one line."""
    typer.echo(printable_json(msgspec.json.encode(value).decode()))


def write_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Write one page of a list."""
    if as_json:
        for row in rows:
            write_json(row)
    elif rows:
        Console().print(_table(rows))


def write_answer(answer: Mapping[str, Any], as_json: bool) -> None:
    """Write one object; lists of objects in it become tables."""
    if as_json:
        write_json(answer)
    else:
        Console().print(_sheet(answer))


def _sheet(fields: Mapping[str, Any]) -> RenderableType:
    """Draw an object: its plain fields, then those with explanations in a table, then lists and nested objects."""
    grid = Table.grid(padding=(0, 2))
    nested: list[RenderableType] = []

    explanations = {name: value for name, value in fields.items() if _explains_fields(fields, value)}
    explained = [name for name in fields if any(name in texts for texts in explanations.values())]
    if explained:
        columns = {name: {column: texts.get(name) for column, texts in explanations.items()} for name in explained}
        nested += [Text(), _table([{"field": name, "value": fields[name], **columns[name]} for name in explained])]

    for name, value in fields.items():
        if name in explanations or name in explained:
            continue
        if _is_rows(value):
            nested += [Text(f"\n{name}", "bold"), Padding(_nested(value), (0, 0, 0, 2))]
        elif _is_large(value):
            nested += [Text(f"\n{name}", "bold"), Padding(_sheet(value), (0, 0, 0, 2))]
        else:
            grid.add_row(Text(name, "bold"), _text(value))

    return Group(*([grid] if grid.row_count else [Text("done")] if not nested else []), *nested)


def _nested(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Draw rows as a table; lists in them become tables behind it, whose rows begin with the first field of theirs."""
    inner = [name for name in dict.fromkeys(name for row in rows for name in row) if _any_rows(rows, name)]
    if not inner:
        return _table(rows)
    first = next(iter(rows[0]))
    parts: list[RenderableType] = [_table([{k: v for k, v in row.items() if k not in inner} for row in rows])]
    for name in inner:
        inner_rows = [{first: row[first], **inner_row} for row in rows for inner_row in row.get(name) or []]
        parts += [Text(f"\n{name}", "bold"), Padding(_nested(inner_rows), (0, 0, 0, 2))]
    return Group(*parts)


def _any_rows(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(_is_rows(row.get(name)) for row in rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > _MAX_INLINE_FIELDS and len(rows) == 1:
        return _sheet(rows[0])
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        number = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in names))
    return table


def _text(value: object) -> Text:
    """Draw one value as it is: brackets in it are no markup, and what a terminal would act upon is escaped."""
    return Text(printable_lines(_cell(value)))


def _cell(value: object) -> str:
    """Write one value into one cell."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case int() | float():
            return f"{value:.15g}" if isinstance(value, float) else str(value)

        case list() if all(isinstance(one, str | int) for one in value):
            return ", ".join(map(str, value))
        case list() if _is_rows(value):
            return "\n".join(_cell(row) for row in value)
        case dict():
            return ", ".join(f"{name}: {_cell(inner) or '-'}" for name, inner in value.items())

        case _:
            return json.dumps(value, ensure_ascii=False)


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _explains_fields(fields: Mapping[str, Any], value: object) -> bool:
    """Tell whether the value is an object that has texts about the fields beside it, by their names."""
    return (
        isinstance(value, dict)
        and bool(value)
        and value.keys() <= fields.keys()
        and all(isinstance(one, str) for one in value.values())
    )


def _is_large(value: object) -> bool:
    """Tell whether the value is an object that does not fit into one line of another."""
    return isinstance(value, dict) and (
        len(value) > _MAX_INLINE_FIELDS
        or any(_is_rows(inner) or _explains_fields(value, inner) for inner in value.values())
    )
