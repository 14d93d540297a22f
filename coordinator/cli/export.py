"""`coordinator result export`: all results on standard output, page by page, so that memory does not grow with them.

The rows of a page stay the text that the server has sent: JSON Lines needs no decoding of them, CSV only one level.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from io import StringIO
from typing import Any

import msgspec
import typer
from msgspec import structs

from coordinator.cli.admin_client import AdminClient
from coordinator.errors import CoordinatorError
from coordinator.printable import printable, printable_json
from coordinator.wire.admin.results import ResultExport

EXPORT_ROWS_PER_PAGE = 20_000
"""Rows of one page; the server ends a page earlier if they are long."""


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


CSV_COLUMNS = _ExportRow.__struct_fields__
"""`value` is JSON in the CSV, too."""

_rows_decoder: msgspec.json.Decoder[list[_ExportRow]] = msgspec.json.Decoder(list[_ExportRow])
_raw_rows_decoder: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


async def write_export(client: AdminClient, message: ResultExport, *, whole: bool) -> None:
    """Write one page, or with `whole` all pages from `after` on, to standard output.

    A CSV that continues after an `after` has no header line.

    Raises:
        Refused, ServerUnreachable: the export broke off; standard error has the `--after` to continue with.
    """
    after = message.after
    if whole:
        message = structs.replace(message, limit=EXPORT_ROWS_PER_PAGE)
    if message.format == "csv" and after is None:
        sys.stdout.write(",".join(CSV_COLUMNS) + "\r\n")

    try:
        page = await client.request(message, raw=True)
        while True:
            more = page["next"] if whole else None
            # The server prepares the next page while this one is written, which may wait for a pipe.
            coming = None if more is None else await client.post(structs.replace(message, after=more), raw=True)
            await asyncio.to_thread(_write, page["rows"], message.format)
            after = page["next"]
            if coming is None:
                break
            page = await coming
    except CoordinatorError:
        if after is not None:
            _tell_next_page(after)
        raise

    sys.stdout.flush()
    if after is not None:
        _tell_next_page(after)


def _tell_next_page(after: str) -> None:
    sys.stdout.flush()
    typer.echo(f"There is more: --after '{after}'", err=True)


def _write(rows: msgspec.Raw, form: str) -> None:
    """Write the rows as they are; to a terminal, what it would act upon is escaped."""
    seen = sys.stdout.isatty()
    if form == "jsonl":
        lines = (bytes(row).decode() for row in _raw_rows_decoder.decode(rows))
        sys.stdout.write("".join(f"{printable_json(line) if seen else line}\n" for line in lines))
        return

    text = StringIO()
    write = csv.writer(text).writerow
    for row in _rows_decoder.decode(rows):
        write(
            (
                row.service,
                row.item,
                row.key,
                bytes(row.value).decode(),
                row.client_id,
                row.session_id,
                row.bucket_id,
                row.claim,
                row.at,
                "true" if row.valid else "false",
            )
        )

    sys.stdout.write("\n".join(map(printable, text.getvalue().splitlines())) + "\n" if seen else text.getvalue())
