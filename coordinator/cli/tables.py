"""Tables for people, as wide as the terminal: columns are left out before a number, a time or an id is broken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from coordinator.printable import printable

NOT_KNOWN = "\N{EN DASH}"
"""Stands for a figure that is not known yet."""

GAP = 2
"""Spaces between two columns."""

LONGEST_WHOLE_ID = 36
"""Characters up to which an id or a key is never cut: those of a UUID."""

LEAST_TEXT = 12
"""Characters of a text that are worth a column."""

MUCH_TEXT = 40
"""Characters of a text that it gets before less important columns are shown at all."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its cells as texts, and where they may be cut; `whole` ones are not."""

    name: str
    cells: Sequence[str]
    cut: Literal["whole", "middle", "end"]
    right: bool
    styles: Sequence[str] = ()
    """That of each cell, if they have any."""

    @property
    def natural(self) -> int:
        """The width that it takes uncut."""
        return max(cell_len(self.name), *map(cell_len, self.cells))

    @property
    def least(self) -> int:
        """The smallest width that it is shown with."""
        if self.cut == "whole":
            return self.natural
        return min(self.natural, max(cell_len(self.name), LONGEST_WHOLE_ID if self.cut == "middle" else LEAST_TEXT))


def column_of(name: str, values: Sequence[object], *, exact: bool) -> Column:
    """Make a column; with `exact` times keep their fractions of seconds."""
    cells = [printable(cell_text(value, exact=exact)) for value in values]
    cut: Literal["whole", "middle", "end"] = "whole"
    if any(isinstance(value, dict | list) or (isinstance(value, str) and " " in value) for value in values):
        cut = "end"
    elif any(isinstance(value, str) and len(value) > LONGEST_WHOLE_ID for value in values):
        cut = "middle"
    figures = all(isinstance(value, int | float | None) and not isinstance(value, bool) for value in values)
    return Column(printable(name), cells, cut, figures)


def draw_table(
    rows: Sequence[Row], width: int | None, *, order: Sequence[str] = (), wrap: bool = False
) -> tuple[list[Text], list[str]]:
    """Draw rows of fields; the other arguments and what is returned are as for `draw_columns`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [column_of(name, [row.get(name) for row in rows], exact=width is None) for name in names]
    return draw_columns(columns, width, order=order, wrap=wrap)


def draw_columns(
    columns: Sequence[Column], width: int | None, *, order: Sequence[str] = (), wrap: bool = False
) -> tuple[list[Text], list[str]]:
    """Draw columns beside each other; returns the lines, and the names of the columns that have no room.

    `width` is None for all columns, uncut.  Columns named in `order` are kept before others, the first of them always.
    With `wrap`, texts go on in further lines instead of being cut.
    """
    natural = {column.name: column.natural for column in columns}
    widths = natural if width is None else _widths(columns, width, order)
    kept = [column for column in columns if column.name in widths]

    lines = [_line([_padded(Text(c.name, "bold"), widths[c.name], right=c.right) for c in kept])]
    for number in range(len(kept[0].cells)):
        cells = [_cell_lines(column, number, widths[column.name], wrap=wrap) for column in kept]
        for height in range(max(map(len, cells))):
            parts = [cell[height] if height < len(cell) else Text() for cell in cells]
            lines.append(
                _line([_padded(part, widths[c.name], right=c.right) for part, c in zip(parts, kept, strict=True)])
            )
    return lines, [column.name for column in columns if column.name not in widths]


def draw_fields(fields: Mapping[str, object], width: int | None) -> list[Text]:
    """Draw an object's plain fields, a line each; only what has spaces in it goes on in further lines."""
    fields = {printable(name): value for name, value in fields.items()}
    names = max(map(cell_len, fields), default=0)
    lines: list[Text] = []
    for name, value in fields.items():
        text = cell_text(value, exact=width is None)
        parts = [part for line in text.split("\n") for part in wrapped(printable(line), width, names + GAP)]
        for number, part in enumerate(parts):
            lines.append(_line([_padded(Text(name if not number else "", "bold"), names, right=False), Text(part)]))
    return lines


def cell_text(value: object, *, exact: bool) -> str:
    """Write one value, as it stands in a cell."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return value if exact else _TIME.sub(r"\1Z", value)
        case int():
            return str(value)
        case float():
            return f"{value:.15g}" if exact else f"{round(value, 3):.15g}"
        case list():
            return ", ".join(_name(one, exact=exact) for one in value)
        case {"what": str(what), "text": str(text), "until": until}:  # what a client does
            return f"{what}: {text}" + ("" if until is None else f", until {cell_text(until, exact=exact)}")
        case dict():
            return ", ".join(f"{name}: {cell_text(inner, exact=exact) or '-'}" for name, inner in value.items())
        case _:
            return str(value)


def _name(value: object, *, exact: bool) -> str:
    """Write one member of a list; of an object in it its first field, and the state."""
    if not isinstance(value, dict) or not value:
        return cell_text(value, exact=exact)
    first, *others = value
    named = [first, *(name for name in others if name == "state")]
    return " ".join(cell_text(value[name], exact=exact) for name in named)


def _widths(columns: Sequence[Column], width: int, order: Sequence[str]) -> dict[str, int]:
    """Return the width of each column that is shown: as many as have room, the most important ones first."""
    ranks = {name: rank for rank, name in enumerate(order)}
    ranked = sorted(columns, key=lambda column: (not any(column.cells), ranks.get(column.name, len(ranks))))
    widths: dict[str, int] = {}
    room = width
    for column in ranked:
        gap = GAP if widths else 0
        wanted = column.least if column.cut == "middle" else min(column.natural, max(column.least, MUCH_TEXT))
        given = wanted if gap + wanted <= room else column.least
        if gap + given <= room or not widths:
            widths[column.name] = given
            room -= gap + given

    for column in ranked:
        if column.name in widths:
            more = max(0, min(room, column.natural - widths[column.name]))
            widths[column.name] += more
            room -= more
    return widths


def _cell_lines(column: Column, number: int, width: int, *, wrap: bool) -> list[Text]:
    """Return the lines of one cell, each no wider than its column."""
    text, style = column.cells[number], column.styles[number] if column.styles else ""
    if cell_len(text) <= width:
        parts = [text]
    elif wrap and column.cut == "end":
        parts = wrapped(text, width, 0)
    elif column.cut == "middle":
        tail = (width - 1) // 2
        parts = [_head(text, width - 1 - tail) + "…" + text[len(text) - tail :]]
    else:
        parts = [_head(text, width - 1) + "…"]
    return [Text(part, style) for part in parts]


def _head(text: str, width: int) -> str:
    cut = Text(text)
    cut.truncate(width)
    return cut.plain


def wrapped(text: str, width: int | None, indent: int) -> list[str]:
    """Break a text between words, so that it fits beside what stands before it."""
    if width is None or " " not in text or cell_len(text) <= width - indent:
        return [text]
    room = max(LEAST_TEXT, width - indent)
    return [line.plain.rstrip() for line in Text(text).wrap(Console(width=room), room, overflow="fold")]


def _padded(text: Text, width: int, *, right: bool) -> Text:
    space = " " * max(0, width - cell_len(text.plain))
    return Text(space) + text if right else text + space


def _line(cells: Iterable[Text]) -> Text:
    line = Text(" " * GAP).join(cells)
    line.rstrip()
    return line
