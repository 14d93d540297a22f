"""Items from a file of any size, one record at a time: CSV, or JSON Lines.

A fault in one record rejects that record alone, and records that were read are not kept in memory.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from coordinator.cli.csv_columns import (
    KEY_NAMES,
    Columns,
    delimiter_of_header,
    delimiter_of_rows,
    header_columns,
    named,
    separator_line,
    unnamed_columns,
)
from coordinator.cli.line_reader import MAX_LINE_BYTES, NOT_TEXT, ByteSource, LineReader
from coordinator.errors import ConfigError
from coordinator.wire.codec import forbidden
from coordinator.wording import counted

MAX_RECORD_CHARACTERS = MAX_LINE_BYTES
"""Characters of one record over all its lines; one item may have less than a tenth of it on the server."""

LINES_TO_LOOK_AT = 20
"""Lines of a file without a header that show what separates its columns."""

Format = Literal["csv", "jsonl"]

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_CSV_FAULTS = (
    ("expected after", "{} was expected behind a quoted cell"),
    ("unexpected end of data", "a quote that does not end"),
    ("new-line character seen", "a carriage return that ends no line"),
)
"""Words of `csv` for what is wrong with a record, and those by which it is told; {} is the delimiter."""

_encode_item = msgspec.json.Encoder().encode
_decode_record = msgspec.json.Decoder().decode
_UTF8_BOM = b"\xef\xbb\xbf"
_INT64 = 2**63


class ParsedItem(NamedTuple):
    """An item as JSON, and the line on which it begins."""

    line: int
    key: str
    json: bytes


class RejectedRecord(NamedTuple):
    """A record that is not an item, and why."""

    line: int
    key: str | None
    reason: str


class _Rejected(Exception):
    """Raised with the reason why the current record is not an item."""


class _FileLine(NamedTuple):
    number: int
    text: str
    fault: str | None
    """The reason why a record with this line is rejected, if it is."""


class ItemFile:
    """The records of one file, each a `ParsedItem` or a `RejectedRecord`.

    `key` names the column or field that is the key; by default the first of `KEY_NAMES` that is there.  `delimiter`
    separates the columns of a CSV; by default it is the one that its first line shows.  Without `header` that line is
    an item, the first column is the key, and others are left out.

    Raises:
        ConfigError: the first line of a CSV cannot be used; no other fault makes the whole file useless.
    """

    def __init__(
        self,
        source: ByteSource,
        key: str | None = None,
        format_: Format | None = None,
        *,
        delimiter: str | None = None,
        header: bool = True,
    ) -> None:
        self._lines = LineReader(source)
        self._key = key
        self._format = format_
        self._delimiter = delimiter
        self._has_header = header
        self._number = 0
        self._quoted_until = 0
        """The number of the last line that is known to need reading one by one."""
        self._reread: deque[_FileLine] = deque()
        self._record: list[_FileLine] = []
        self._record_size = 0

    @property
    def bytes_read(self) -> int:
        """The number of bytes read so far."""
        return self._lines.bytes_read

    def __iter__(self) -> Iterator[ParsedItem | RejectedRecord]:
        first = self._first_line()
        if first is None:
            return iter(())
        if self._format is None:
            self._format = "jsonl" if first.text.lstrip().startswith("{") else "csv"
        return self._json_lines() if self._format == "jsonl" else self._csv()

    def _first_line(self) -> _FileLine | None:
        """Pass over empty lines; return the next one, which is read once more, or None at the end of the file.

        Raises:
            ConfigError: it is no line of a text.
        """
        while (first := self._line()) is not None and not first.text.strip():
            pass
        if first is not None:
            _refuse_no_text(first.text)
            self._reread.append(first)
        return first

    def _line(self) -> _FileLine | None:
        """Read the next line of the file; only its beginning if it is too long."""
        if self._reread:
            return self._reread.popleft()

        read = self._lines.line()
        if read is None:
            return None

        self._number += 1
        raw, too_long = read

        fault = None
        if too_long:
            fault = f"longer than {MAX_LINE_BYTES // 1024} KiB"
        elif b"\0" in raw:
            fault = "it has U+0000"

        if self._number == 1:
            raw = raw.removeprefix(_UTF8_BOM)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text, fault = raw.decode(errors="replace"), fault or "not UTF-8"
        if self._lines.was_utf16 and NOT_TEXT in text:
            fault = fault or "not UTF-16"

        return _FileLine(self._number, text, fault)

    # JSON Lines

    def _json_lines(self) -> Iterator[ParsedItem | RejectedRecord]:
        while (line := self._line()) is not None:
            if line.fault or line.text.strip():
                try:
                    yield self._from_json(line)
                except _Rejected as why:
                    yield RejectedRecord(line.number, None, str(why))

    def _from_json(self, line: _FileLine) -> ParsedItem:
        if line.fault:
            raise _Rejected(line.fault)
        try:
            record = _decode_record(line.text)
        except (msgspec.DecodeError, RecursionError) as failure:
            raise _Rejected(f"not JSON: {failure}") from None

        if not isinstance(record, dict):
            raise _Rejected("not a JSON object")

        name = self._key or next((name for name in KEY_NAMES if name in record), "key")
        key = record.pop(name, None)
        if isinstance(key, int) and not isinstance(key, bool):
            key = str(key)
        if not isinstance(key, str) or not key:
            raise _Rejected(f"no key: expected a text as {name!r}")

        if "key" in record:
            raise _Rejected(f"with {name!r} as the key, 'key' would be a second one")
        # Its message nests an item two levels deep; one that is too deep would have its whole batch refused.
        nested = any(isinstance(value, dict | list) for value in record.values())
        if (nested or "\\u" in line.text) and (fault := forbidden([[{"key": key, **record}]])) is not None:
            raise _Rejected(fault.message)

        return ParsedItem(line.number, key, _encode_item({"key": key, **record}))

    # CSV

    def _csv(self) -> Iterator[ParsedItem | RejectedRecord]:
        first = self._first_line()
        separator = None if first is None else separator_line(first.text)
        if separator is not None:
            self._reread.clear()
            first = self._first_line()
        if first is None:
            return

        columns = self._columns(first.text, self._delimiter or separator)
        reader = csv.reader(self._csv_lines(), strict=True, delimiter=columns.delimiter)
        while True:
            if not self._reread and self._number >= self._quoted_until:
                yield from self._plain_rows(columns)

            self._record, self._record_size = [], 0
            try:
                row = next(reader, None)
                if row is None:
                    return
                if row:
                    _refuse_doubtful(row, columns)
                    if (item := _from_row(row, columns.names, columns.key, self._record[0].number)) is not None:
                        yield item

            except (_Rejected, csv.Error) as why:
                first = self._record[0]
                # A quote that does not end has swallowed lines that may be good: read them again.
                self._reread.extendleft(reversed(self._record[1:]))
                # The reader forgets what it has read of a record when it is asked for the next.
                reader = csv.reader(self._csv_lines(), strict=True, delimiter=columns.delimiter)
                yield RejectedRecord(first.number, None, _in_words(why, columns.delimiter))

    def _plain_rows(self, columns: Columns) -> Iterator[ParsedItem | RejectedRecord]:
        """Read blocks of lines in which nothing is quoted, several times as fast as line by line.

        It stops before a block that has anything else than rows, or no whole line, or may have other columns; in a file
        of which lines may be no UTF-16, at once.
        """
        if self._lines.was_utf16:
            return
        names, key_at = columns.names, columns.key
        while block := self._lines.block():
            try:
                rows = _rows_of(block, columns)
            except (UnicodeDecodeError, csv.Error):
                rows = None
            if rows is None:
                self._lines.give_back(block)
                self._quoted_until = self._number + block.count(b"\n")
                return

            for number, row in enumerate(rows, self._number + 1):
                if row:
                    try:
                        if (item := _from_row(row, names, key_at, number)) is not None:
                            yield item
                    except _Rejected as why:
                        yield RejectedRecord(number, None, str(why))
            self._number += len(rows)

    def _csv_lines(self) -> Iterator[str]:
        while (line := self._line()) is not None:
            self._record.append(line)
            self._record_size += len(line.text)
            if line.fault:
                raise _Rejected(line.fault)
            if self._record_size > MAX_RECORD_CHARACTERS:
                raise _Rejected("a quote that does not end")
            yield line.text

    def _columns(self, first: str, delimiter: str | None) -> Columns:
        """Find the columns by the first line, which is read if it is a header.

        Raises:
            ConfigError: they are not certain.
        """
        undecided = False
        if not self._has_header:
            if delimiter is None:
                delimiter, undecided = delimiter_of_rows([first, *self._lines.lines_at_hand(LINES_TO_LOOK_AT)])
            return unnamed_columns(first, delimiter, undecided)

        if delimiter is None:
            delimiter, undecided = delimiter_of_header(first, self._key)
        try:
            names = next(csv.reader(self._csv_lines(), strict=True, delimiter=delimiter))
        except (csv.Error, _Rejected) as failure:
            raise ConfigError(f"The header line cannot be read: {_in_words(failure, delimiter)}.") from None
        return header_columns(names, self._key, first, delimiter, undecided)


def _refuse_no_text(first: str) -> None:
    """Check that a first line can be one of JSON Lines or of a CSV.

    Raises:
        ConfigError: it cannot; the message says what to do.
    """
    if "\0" in first:
        raise ConfigError("The first line has U+0000, which no text has: save a table as CSV, in UTF-8.")
    if first.strip() == "[" or first.lstrip().startswith("[{"):
        raise ConfigError(
            "This is one JSON array: JSON Lines were expected, with an object a line, as `jq -c .[]` writes them."
        )
    if "\r" in first.rstrip("\r\n") and '"' not in first:
        raise ConfigError("The lines end in a carriage return alone: save the text with usual line ends.")


def _rows_of(block: bytes, columns: Columns) -> list[list[str]] | None:
    """Split whole lines into cells; None if a line may be more or less than a row.

    Raises:
        UnicodeDecodeError, csv.Error: some line is no row.
    """
    if b'"' in block or b"\0" in block:
        return None
    text = block.decode()
    if columns.doubt(text) is not None:
        return None
    lines = text.split("\n")
    del lines[-1]
    if max(map(len, lines)) > MAX_LINE_BYTES // 4:  # bytes of a character, at most
        return None
    return list(csv.reader(lines, strict=True, delimiter=columns.delimiter))


def _refuse_doubtful(row: list[str], columns: Columns) -> None:
    if (doubt := columns.doubt(row[0])) is not None:
        raise _Rejected(
            f"{named(doubt)} may separate columns: give --delimiter {named(doubt)} if it does, "
            f"--delimiter {named(columns.delimiter)} if it is part of the key"
        )


def _in_words(failure: Exception, delimiter: str) -> str:
    """Return why a record cannot be read, in words for the one whose file it is."""
    for said, words in _CSV_FAULTS:
        if isinstance(failure, csv.Error) and said in str(failure):
            return words.format(named(delimiter))
    return str(failure)


def _from_row(row: list[str], names: Sequence[str], key_at: int, number: int) -> ParsedItem | None:
    """Make an item of a row; None if the line is blank."""
    if len(row) != len(names):
        if _is_blank(row):
            return None
        raise _Rejected(f"{counted(len(row), 'cell')}, and the first line has {len(names)}")
    key = row[key_at].strip()
    if not key:
        if _is_blank(row):
            return None
        raise _Rejected(f"no key: {names[key_at]!r} is empty")

    item: dict[str, str | int] = {"key": key}
    if len(row) > 1:
        for at, cell in enumerate(row):
            if cell and at != key_at and names[at]:
                item[names[at]] = _value(cell)
    return ParsedItem(number, key, _encode_item(item))


def _is_blank(row: list[str]) -> bool:
    return len(row) == 1 and not row[0].strip()


def _value(cell: str) -> str | int:
    """Read a cell: a whole number of 64 bits becomes one, all else stays text."""
    if _WHOLE_NUMBER.fullmatch(cell) and -_INT64 <= (number := int(cell)) < _INT64:
        return number
    return cell


def size_of(file: BinaryIO) -> int | None:
    """Return the size of a file in bytes; None if it is a pipe."""
    if not file.seekable():
        return None
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end
