"""`coordinator result export`: all results on standard output, page by page, so that memory does not grow with them."""

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
from coordinator.wire.admin import ResultExport

COLUMNS = ("service", "item", "key", "value", "client_id", "session_id", "bucket_id", "claim", "at", "valid")
"""Of the CSV; `value` is JSON in it."""

Row = dict[str, Any]


async def write_export(client: AdminClient, message: ResultExport, *, whole: bool) -> None:
    """Write what the request asks for: one page, or all pages from `after` on.

    A CSV that goes on where one was broken off has no second header.

    Raises:
        Refused, Unreached: it was broken off; standard error says after what it can go on.
    """
    after = message.after
    if message.format == "csv" and after is None:
        sys.stdout.write(",".join(COLUMNS) + "\r\n")
    try:
        page = await client.request(message)
        while True:
            more = page["next"] if whole else None
            # The server works on the next page while this one is written; and writing may wait for a pipe.
            coming = None if more is None else await client.post(structs.replace(message, after=more))
            await asyncio.to_thread(sys.stdout.write, _text(page["rows"], message.format))
            after = page["next"]
            if coming is None:
                break
            page = await coming
    except CoordinatorError:
        if after is not None:
            _tell(after)
        raise
    sys.stdout.flush()
    if after is not None:
        _tell(after)


def _tell(after: str) -> None:
    sys.stdout.flush()
    typer.echo(f"There is more: --after '{after}'", err=True)


def _text(rows: list[Row], form: str) -> str:
    encode = msgspec.json.encode
    if form == "jsonl":
        return "".join(f"{encode(row).decode()}\n" for row in rows)
    text = StringIO()
    writer = csv.writer(text)
    for row in rows:
        cells = {**row, "value": encode(row["value"]).decode(), "valid": "true" if row["valid"] else "false"}
        writer.writerow([cells[name] for name in COLUMNS])
    return text.getvalue()
