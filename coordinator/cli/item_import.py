"""`coordinator item import`: items from a file of any size, in batches, several of them unanswered at a time."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from coordinator.cli.access import (
    AsJson,
    Authority,
    DataFolder,
    Server,
    ServerAccess,
    Token,
    find_server,
    find_token,
)
from coordinator.cli.admin_client import AdminClient, admin_connection
from coordinator.cli.csv_columns import delimiter_of
from coordinator.cli.distinct_texts import DistinctTexts
from coordinator.cli.exits import EXIT_REFUSED, with_exit_codes
from coordinator.cli.item_file import Format, ItemFile, ParsedItem, RejectedRecord, size_of
from coordinator.cli.output import write_json
from coordinator.errors import ConfigError, Refused
from coordinator.keys import KeyForm, canonical_of_all
from coordinator.printable import printable, printable_json
from coordinator.wire.admin.items import ItemAdd
from coordinator.wire.admin.system import LimitsShow, Stats

ITEMS_PER_BATCH = 5000
"""Items of one message, at most: a transaction, the making of buckets and a wait for the disk cost the less an item the
more of them there are; the server lets others have a turn while it reads a message."""

_MAX_BATCHES_UNANSWERED = 4
"""Batches that are sent before the answer to the first one is awaited."""

_BATCH_SHARE_OF_MESSAGE = 0.75
"""Share of the server's largest message that the items of a batch may fill."""

_TRANSIENT_IMPORT_REFUSALS = frozenset({"unavailable", "rate_limited", "draining"})
_MAX_ADD_ATTEMPTS = 8
_FIRST_RETRY_DELAY = 1.0
"""Seconds before a repeat if the server names none; doubles with each."""

MAX_KEY_LENGTH_SHOWN = 60
"""Characters of a rejected key that are shown to people."""


@dataclass(slots=True)
class ImportBatch:
    """The items of one message, and the records rejected while they were read."""

    items: list[ParsedItem] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)
    bytes_read: int = 0

    def message(self, services: list[str] | None, priority: int) -> ItemAdd:
        """Build the request that adds the items."""
        raw = [msgspec.Raw(item.json) for item in self.items]
        return ItemAdd(items=raw, services=services, priority=priority)

    def keys_without(self, refused: list[RejectedRecord]) -> list[str]:
        """Return the keys of the items but those that were refused."""
        if not refused:
            return [item.key for item in self.items]
        lines = {record.line for record in refused}
        return [item.key for item in self.items if item.line not in lines]


@dataclass(slots=True)
class ImportCounts:
    """The counts of an import: each record is in one of them.

    `repeated` are those of a key that an earlier record of the file has.
    """

    added: int = 0
    known: int = 0
    repeated: int = 0
    refused: int = 0

    def find_repeated(self, keys: DistinctTexts) -> None:
        """Count records of one key as such: a server that is told a key in two messages knows it the second time."""
        distinct = keys.given if self.added == keys.given else keys.count()
        self.known -= max(0, self.added + self.known - distinct)
        self.repeated = keys.given - distinct


def batches(file: ItemFile, most_bytes: int) -> Iterator[ImportBatch]:
    """Cut a file into batches of at most ITEMS_PER_BATCH items and `most_bytes`."""
    batch, size = ImportBatch(), 0
    for record in file:
        fits = isinstance(record, RejectedRecord) or (
            len(batch.items) < ITEMS_PER_BATCH and size + len(record.json) < most_bytes
        )
        if not fits or len(batch.rejected) >= ITEMS_PER_BATCH:
            batch.bytes_read = file.bytes_read
            yield batch
            batch, size = ImportBatch(), 0

        if isinstance(record, RejectedRecord):
            batch.rejected.append(record)
        else:
            batch.items.append(record)
            size += len(record.json) + 1

    batch.bytes_read = file.bytes_read
    yield batch


async def import_items(
    client: AdminClient,
    file: ItemFile,
    services: list[str] | None = None,
    priority: int = 100,
    refused: Callable[[RejectedRecord], None] = lambda record: None,
    progress: Callable[[int], None] = lambda read: None,
) -> ImportCounts:
    """Add all items of a file; safe to repeat, since what is known already is not added again.

    `refused` is called with each record that is not added, `progress` with the bytes that are read and answered.

    Raises:
        Refused, ServerUnreachable: the import stopped there; the items before are added.
    """
    limit: int = (await client.request(LimitsShow()))["limits"]["max_message_bytes"]
    form: KeyForm = (await client.request(Stats()))["key_form"]
    unanswered: deque[tuple[ImportBatch, ItemAdd, asyncio.Future[dict[str, Any]]]] = deque()

    with DistinctTexts() as keys:
        counts = ImportCounts()

        async def settle() -> None:
            batch, message, answer = unanswered.popleft()
            rejected = batch.rejected
            if batch.items:
                result = await _answer(client, message, answer)
                counts.added += result["added"]
                counts.known += result["known"]
                by_server = list(map(rejection_by_server(batch), result["refused"]))
                keys.add(canonical_of_all(batch.keys_without(by_server), form))
                rejected = sorted([*rejected, *by_server], key=lambda record: record.line)

            counts.refused += len(rejected)
            for record in rejected:
                refused(record)
            progress(batch.bytes_read)

        cut = batches(file, int(limit * _BATCH_SHARE_OF_MESSAGE))
        # Reading may wait for a disk or a pipe, and the connection has to be answered meanwhile.
        while (batch := await asyncio.to_thread(next, cut, None)) is not None:
            message = batch.message(services, priority)
            nothing: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            unanswered.append((batch, message, await client.post(message) if batch.items else nothing))
            if len(unanswered) >= _MAX_BATCHES_UNANSWERED:
                await settle()

        while unanswered:
            await settle()
        await asyncio.to_thread(counts.find_repeated, keys)
    return counts


def rejection_by_server(batch: ImportBatch) -> Callable[[dict[str, Any]], RejectedRecord]:
    """Make the function that gives a refusal of the server the line and key of its item."""

    def located(refusal: dict[str, Any]) -> RejectedRecord:
        item = batch.items[refusal["index"]]
        return RejectedRecord(item.line, item.key, str(refusal["reason"]))

    return located


async def _answer(client: AdminClient, message: ItemAdd, answer: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    """Await the answer; send the message again after transient refusals."""
    for again in range(_MAX_ADD_ATTEMPTS):
        try:
            return await answer
        except Refused as failure:
            if failure.code not in _TRANSIENT_IMPORT_REFUSALS or again == _MAX_ADD_ATTEMPTS - 1:
                raise
            await asyncio.sleep(failure.retry_after or _FIRST_RETRY_DELAY * 2**again)
        answer = await client.post(message)
    raise AssertionError("the last try returns or raises")


@with_exit_codes
def item_import(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSON Lines; - is standard input.")],
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service", "--services", metavar="NAME",
            help="A service that the items are for; repeat it for several. All active ones unless given.",
        ),
    ] = None,
    priority: Annotated[
        int, typer.Option(min=0, max=200, help="100 is normal, lower is sooner.")
    ] = 100,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column or field that is the key. Default: key, screen_name, username, handle or account.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="CHARACTER",
            help="Between the columns of a CSV: comma, semicolon, tab, pipe or another. Default: as line 1 shows.",
        ),
    ] = None,
    header: Annotated[
        bool,
        typer.Option(
            "--header/--no-header",
            help="Whether a CSV's first line names its columns; else the first is the key, and others are left out.",
        ),
    ] = True,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Default: as the file's name or first character says.")
    ] = None,
    server: Server = None, ca: Authority = None,
    token: Token = None,
    data: DataFolder = None,
    json: AsJson = False,
) -> None:  # fmt: skip
    """Add the items of a file of any size, in UTF-8, or UTF-16 with a mark; safe to repeat.

    The first line of a CSV names its columns (before it, `sep=;` may say what separates them); others than the key
    become attributes: whole numbers of up to 64 bits as numbers, all else as text. Those of a known item stay as they
    are. A key that stands twice counts as repeated. Lines that are refused are told on standard error with their number
    and the reason, and make the exit code 1; all others are added.

    Example: `coordinator item import accounts.csv --service dm_check`
    """
    if key is not None and not header:
        raise ConfigError("key: expected no name of a column, since --no-header says that none has one")
    separator = None if delimiter is None else delimiter_of(delimiter)

    with ExitStack() as stack:
        source = _open(file, stack)
        items = ItemFile(source, key, format_ or _format_of(file), delimiter=separator, header=header)
        access, found = find_server(server, data, ca), find_token(token, data)
        counts = asyncio.run(_run(items, size_of(source), access, found, service, priority, json))
    _report(counts, json)


def _report(counts: ImportCounts, as_json: bool) -> None:
    """Tell the counts; the exit code is 1 if records were refused."""
    if as_json:
        write_json(asdict(counts))
    else:
        typer.echo(", ".join(f"{count:,} {what}" for what, count in asdict(counts).items()))
    if not any(asdict(counts).values()):
        typer.echo("There were no items in it; the first line of a CSV names its columns.", err=True)
    if counts.refused:
        raise typer.Exit(EXIT_REFUSED)


async def _run(
    items: ItemFile,
    size: int | None,
    server: ServerAccess,
    token: str | None,
    services: list[str] | None,
    priority: int,
    as_json: bool,
) -> ImportCounts:
    console = Console(stderr=True)
    columns = (TextColumn("Importing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=as_json or not console.is_terminal, transient=True)

    def refused(record: RejectedRecord) -> None:
        if as_json:
            row = {"line": record.line, "key": record.key, "reason": record.reason}
            typer.echo(printable_json(msgspec.json.encode(row).decode()), err=True)
        else:
            named = f" ({_shortened(record.key)})" if record.key else ""
            text = printable(f"line {record.line}{named}: {record.reason}")
            console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)

    async with admin_connection(server.address, token, server.authority) as client:
        with bar:
            task = bar.add_task("", total=size)
            return await import_items(
                client, items, services, priority, refused, lambda read: bar.update(task, completed=read)
            )


def _shortened(key: str) -> str:
    return key if len(key) <= MAX_KEY_LENGTH_SHOWN else f"{key[:MAX_KEY_LENGTH_SHOWN]}…"


def _open(name: str, stack: ExitStack) -> BufferedReader:
    if name == "-":
        return cast("BufferedReader", sys.stdin.buffer)  # all but its declared type says so
    try:
        return stack.enter_context(Path(name).open("rb"))
    except OSError as failure:
        raise ConfigError(f"{name} cannot be read: {failure.strerror}") from failure


def _format_of(name: str) -> Format | None:
    suffix = Path(name).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    return "csv" if suffix == ".csv" else None
