"""`coordinator result export` and `result changes`: page by page, so that memory does not grow with them.

The rows of a page stay the text that the server has sent: JSON Lines needs no decoding of them.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import Any

import msgspec
import typer
from msgspec import structs

from coordinator.cli.admin_client import AdminClient
from coordinator.cli.output import Output, after_hint, shell_word
from coordinator.errors import CoordinatorError
from coordinator.printable import printable, printable_json
from coordinator.wire.admin.results import ResultChanges, ResultExport
from coordinator.wire.admin.services import ServiceShow

EXPORT_ROWS_PER_PAGE = 20_000
"""Rows of one page; the server ends a page earlier if they are long."""


ROW_FIELDS = ("service", "item", "key", "value", "client_id", "session_id", "bucket_id", "claim", "at", "valid")
"""The fields of each row; in CSV their columns come first, and `value` is JSON."""

MAX_ATTRIBUTE_COLUMNS = 100
"""Attributes of the first page that get columns of their own; `attributes` has all, as JSON."""

_no_attributes = msgspec.Raw(b"{}")


class _ExportRow(msgspec.Struct):
    service: Any
    item: Any
    key: Any
    value: msgspec.Raw
    client_id: Any
    session_id: Any
    bucket_id: Any
    claim: Any
    at: Any
    valid: bool
    attributes: msgspec.Raw = _no_attributes


_rows_decoder: msgspec.json.Decoder[list[_ExportRow]] = msgspec.json.Decoder(list[_ExportRow])
_raw_rows_decoder: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_fields_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class CsvForm:
    """How a CSV is written.

    With `spreadsheet` its texts are formulas that say just that text: of all else a spreadsheet makes numbers, dates
    and formulas of its own.  `attributes`: those with a column of their own; none named: those of the first page.
    """

    spreadsheet: bool = False
    bom: bool = False
    attributes: tuple[str, ...] = ()


class CsvTable:
    """Writes rows as CSV: their fields, then a column for each field of the results and for each attribute."""

    def __init__(self, form: CsvForm, fields: Sequence[str], attributes: Sequence[str]) -> None:
        self._cell = _text_for_spreadsheets if form.spreadsheet else str
        self._mark = "\ufeff" if form.bom or form.spreadsheet else ""
        self._fields = fields
        self._attributes = attributes

    def header(self) -> str:
        """Return the first line."""
        names = [f"value.{name}" for name in self._fields] + [f"attributes.{name}" for name in self._attributes]
        return self._mark + _csv_text([[*ROW_FIELDS, "attributes", *names]])

    def lines(self, rows: msgspec.Raw) -> str:
        """Return the lines of one page."""
        return _csv_text(self._cells(row) for row in _rows_decoder.decode(rows))

    def _cells(self, row: _ExportRow) -> list[object]:
        cell = self._cell
        values = _fields_decoder.decode(row.value) if self._fields else {}
        attributes = _fields_decoder.decode(row.attributes) if self._attributes else {}

        return [
            cell(row.service),
            row.item,
            cell(row.key),
            bytes(row.value).decode(),  # begins with a brace, which no spreadsheet takes for anything
            cell(row.client_id),
            cell(row.session_id),
            cell(row.bucket_id),
            row.claim,
            cell(row.at),
            "true" if row.valid else "false",
            bytes(row.attributes).decode(),
            *(self._inner(values.get(name)) for name in self._fields),
            *(self._inner(attributes.get(name)) for name in self._attributes),
        ]

    def _inner(self, value: object) -> str:
        """Write a field of a result, or an attribute; what is neither text, number nor yes or no stays JSON."""
        if value is None:
            return ""
        return self._cell(value) if isinstance(value, str) else msgspec.json.encode(value).decode()


async def write_export(client: AdminClient, message: ResultExport, form: CsvForm, *, whole: bool) -> None:
    """Write one page, or with `whole` all pages from `after` on, to standard output.

    A CSV that continues after an `after` has no header line.

    Raises:
        Refused, ServerUnreachable: the export broke off; standard error has the options to continue with.
    """
    after, table, again = message.after, None, ""
    if whole:
        message = structs.replace(message, limit=EXPORT_ROWS_PER_PAGE)
    if message.format == "csv":
        message = structs.replace(message, attributes=True)

    try:
        page = await client.request(message, raw=True)
        if message.format == "csv":
            table, again = await _csv_table(client, message, form, page["rows"])
        while True:
            more = page["next"] if whole else None
            # The server prepares the next page while this one is written, which may wait for a pipe.
            coming = None if more is None else await client.post(structs.replace(message, after=more), raw=True)
            await asyncio.to_thread(_write, page["rows"], table)
            after = page["next"]
            if coming is None:
                break
            page = await coming
    except CoordinatorError:
        if after is not None:
            _tell_next_page(after, again)
        raise

    sys.stdout.flush()
    if after is not None:
        _tell_next_page(after, again)


async def _csv_table(
    client: AdminClient, message: ResultExport, form: CsvForm, rows: msgspec.Raw
) -> tuple[CsvTable, str]:
    """Write the header, unless this goes on after a page before; returns the table, and the options to go on with."""
    shown = await client.request(ServiceShow(service=message.service))
    names = form.attributes
    if not names and message.after is None:
        found = dict.fromkeys(
            name
            for row in _rows_decoder.decode(rows)
            if row.attributes != _no_attributes
            for name in _fields_decoder.decode(row.attributes)
        )
        names = tuple(islice(found, MAX_ATTRIBUTE_COLUMNS))

    table = CsvTable(form, list(shown["result_schema"].get("properties", ())), names)
    if message.after is None:
        _write_text(table.header())
    return table, "".join(f" --attribute {shell_word(name)}" for name in names)


async def write_changes(client: AdminClient, message: ResultChanges, output: Output, *, whole: bool) -> None:
    """Write one page of changes, or with `whole` all that there are, and tell where those to come begin.

    Raises:
        Refused, ServerUnreachable: it broke off; standard error has the `--after` to continue with.
    """
    more = True
    try:
        while more:
            page = await client.request(message)
            output.rows(page["rows"])
            message = structs.replace(message, after=page["next"])
            more = whole and page["more"]
    except CoordinatorError:
        if message.after is not None:
            _tell_next_page(message.after)
        raise

    sys.stdout.flush()
    output.tell_left_out()
    typer.echo(f"{'There is more' if page['more'] else 'Later changes'}: {after_hint(page['next'])}", err=True)


def _tell_next_page(after: str, more: str = "") -> None:
    sys.stdout.flush()
    typer.echo(f"There is more: {after_hint(after)}{more}", err=True)


def _write(rows: msgspec.Raw, table: CsvTable | None) -> None:
    """Write the rows, as they are without a table; to a terminal, what it would act upon is escaped."""
    if table is not None:
        _write_text(table.lines(rows))
        return
    seen = sys.stdout.isatty()
    lines = (bytes(row).decode() for row in _raw_rows_decoder.decode(rows))
    sys.stdout.write("".join(f"{printable_json(line) if seen else line}\n" for line in lines))


def _write_text(text: str) -> None:
    if sys.stdout.isatty():
        text = "".join(f"{printable(line)}\n" for line in text.splitlines())
    sys.stdout.write(text)


def _csv_text(rows: Iterable[Sequence[object]]) -> str:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _text_for_spreadsheets(text: str) -> str:
    """Write a formula whose value is this text: `007` stays that, and `=1+1` is not calculated."""
    return '="{}"'.format(text.replace('"', '""'))
