"""The output of commands: tables for people, JSON lines for programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from coordinator.cli.tables import Row, draw_fields, draw_table
from coordinator.printable import printable, printable_json

PIPED_WIDTH = 160
"""Columns where the output is no terminal, unless COLUMNS says otherwise."""

_MAX_INLINE_FIELDS = 8
"""Fields of a nested object that fit into one line; one with more is shown by itself."""

_FOLDED = {"services": ("items", 6), "statements": ("milliseconds", 5)}
"""Lists within an answer of which only so many rows are shown, those with the largest of a field, if they have it."""

COLUMNS = {
    "bucket.list": ("bucket_id", "service", "state", "client_id", "remaining", "touched_at", "attempts", "claim"),
    "client.list": ("client_id", "state", "health", "doing", "reason", "screen_name", "connected"),
    "item.list": ("key", "services", "item", "attributes"),
    "item.show": ("service", "state", "key", "value", "client_id", "at", "valid"),
    "node.list": ("node", "state", "version", "started_at", "lease_until"),
    "notice.list": ("notice_id", "text", "level", "at", "service", "client_id", "until"),
    "result.changes": ("key", "change", "value", "at", "client_id"),
    "result.list": ("key", "value", "client_id", "at", "valid", "item"),
    "result.invalidations": ("invalidation_id", "at", "results", "client_id", "service"),
    "service.list": ("service", "state", "plugin", "title"),
    "stats": ("service", "settled", "waiting", "ready", "claimed", "quarantined", "items", "dead", "state"),
}
"""The columns of a command's rows that are kept before others where there is not room for all."""


def write_json(value: object) -> None:
    """Write one JSON value on one line."""
    typer.echo(printable_json(msgspec.json.encode(value).decode()))


def after_hint(cursor: str) -> str:
    """Return the option for the next page, as it can be pasted into a shell."""
    return f"--after {shell_word(cursor)}"


def shell_word(text: str) -> str:
    """Quote any text as one word of a shell, without characters that a terminal would act upon."""
    if printable(text) == text:
        return quote(text)
    escaped = printable(text.replace("\\", "\\\\").replace("'", "\\'"))
    return f"$'{escaped}'"


def terminal_width() -> int:
    """Return the columns of the terminal, or how wide it is without one."""
    return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns


class Output:
    """Writes the answers to one command; `tag` is that of its request.  `wide`: all of them, however wide."""

    def __init__(self, *, as_json: bool, wide: bool = False, tag: str = "") -> None:
        self.as_json = as_json
        self._width = None if wide else terminal_width()
        self._order = COLUMNS.get(tag, ())
        self._nests = wide or tag.endswith(".show")
        self._left_out: dict[str, None] = {}

    def rows(self, rows: Sequence[Row]) -> None:
        """Write one page of a list."""
        if self.as_json:
            for row in rows:
                write_json(row)
        elif rows:
            self._print(self._table(rows))

    def answer(self, answer: Mapping[str, Any]) -> None:
        """Write one object; lists of objects in it become tables."""
        if self.as_json:
            write_json(answer)
            return
        self._print(self._sheet(answer, self._width) or [Text("done")])
        self.tell_left_out()

    def tell_left_out(self) -> None:
        """Name on standard error what had no room, once all is written."""
        if self._left_out:
            typer.echo(f"Not shown: {printable(', '.join(self._left_out))} (--wide)", err=True)

    def _print(self, lines: Sequence[Text]) -> None:
        console = Console()
        for line in lines:
            console.print(line, soft_wrap=True)

    def _sheet(self, fields: Mapping[str, Any], width: int | None) -> list[Text]:
        """Draw an object: its plain fields, then those with explanations in a table, then lists and nested objects."""
        plain: dict[str, object] = {}
        nested: list[Text] = []

        explanations = {name: value for name, value in fields.items() if _explains_fields(fields, value)}
        explained = [name for name in fields if any(name in texts for texts in explanations.values())]
        if explained:
            columns = {name: {column: texts.get(name) for column, texts in explanations.items()} for name in explained}
            rows = [{"field": name, "value": fields[name], **columns[name]} for name in explained]
            nested += [Text(), *self._rows_of(rows, width)]

        for name, value in fields.items():
            if name in explanations or name in explained:
                continue
            inner: list[Text] = []
            if _is_rows(value):
                inner = self._nested(name, value, _less(width))
            elif _is_large(value):
                inner = self._sheet(value, _less(width))
            else:
                plain[name] = value
            if inner:
                nested += [Text(), Text(printable(name), "bold"), *map(_indented, inner)]

        return [*draw_fields(plain, width), *nested]

    def _nested(self, name: str, rows: Sequence[Row], width: int | None) -> list[Text]:
        """Draw the rows of a list within an answer.

        Lists in them become tables behind it, whose rows begin with the first field of theirs; but for a command that
        shows one thing, these are left out.
        """
        field, most = _FOLDED.get(name, ("", len(rows)))
        if self._width is not None and len(rows) > most and field in rows[0]:
            self._left_out[f"{len(rows) - most} of the {name}"] = None
            rows = sorted(rows, key=lambda row: row.get(field) or 0, reverse=True)[:most]

        inner = [name for name in dict.fromkeys(name for row in rows for name in row) if _any_rows(rows, name)]
        lines = self._rows_of([{k: v for k, v in row.items() if k not in inner} for row in rows], width)
        if not self._nests:
            self._left_out |= dict.fromkeys(inner)
            return lines

        first = next(iter(rows[0]))
        for list_name in inner:
            inner_rows = [{first: row[first], **inner_row} for row in rows for inner_row in row.get(list_name) or []]
            lines += [Text(), Text(printable(list_name), "bold")]
            lines += map(_indented, self._nested(list_name, inner_rows, _less(width)))
        return lines

    def _table(self, rows: Sequence[Row]) -> list[Text]:
        if self._width is not None:
            rows = [{name: _word(value) for name, value in row.items()} for row in rows]
        return self._rows_of(rows, self._width, wrap=False)

    def _rows_of(self, rows: Sequence[Row], width: int | None, *, wrap: bool = True) -> list[Text]:
        lines, left_out = draw_table(rows, width, order=self._order, wrap=wrap)
        self._left_out |= dict.fromkeys(left_out)
        return lines


def _word(value: object) -> object:
    """Return the word alone where a value says a thing in one word and in many."""
    return value["what"] if isinstance(value, dict) and value.keys() >= {"what", "text"} else value


def _less(width: int | None) -> int | None:
    return None if width is None else width - 2


def _indented(line: Text) -> Text:
    return Text("  ") + line if line.plain else line


def _any_rows(rows: Sequence[Row], name: str) -> bool:
    return any(_is_rows(row.get(name)) for row in rows)


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
