"""Items from a file of any size, one record at a time: CSV with a header line, or JSON Lines.

A fault in one record rejects that record alone, and records that were read are not kept in memory.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple, Protocol

import msgspec

from coordinator.errors import ConfigError
from coordinator.wire.codec import forbidden

MAX_RECORD_BYTES = 64 * 1024
"""Bytes of one record; one item may have less than a tenth of it on the server."""

KEY_NAMES = ("key", "screen_name")
Format = Literal["csv", "jsonl"]

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_encode_item = msgspec.json.Encoder().encode
_decode_record = msgspec.json.Decoder().decode
_UTF8_BOM = b"\xef\xbb\xbf"
_INT64 = 2**63


class ByteSource(Protocol):
    """A binary file, pipe or socket file: anything with `readline`."""

    def readline(self, limit: int = -1, /) -> bytes: ...


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
    """The records of one file, each a `ParsedItem` or a `RejectedRecord`; `bytes_read` counts the bytes read so far.

    `key` names the column or field that is the key; by default `key`, `screen_name`, or the first column.

    Raises:
        ConfigError: the header cannot be used; no other fault makes the whole file useless.
    """

    def __init__(self, source: ByteSource, key: str | None = None, format_: Format | None = None) -> None:
        self.bytes_read = 0
        self._source = source
        self._key = key
        self._format = format_
        self._number = 0
        self._reread: deque[_FileLine] = deque()
        self._record: list[_FileLine] = []
        self._record_size = 0

    def __iter__(self) -> Iterator[ParsedItem | RejectedRecord]:
        while (first := self._line()) is not None and not first.text.strip():
            pass
        if first is None:
            return iter(())

        self._reread.append(first)
        if self._format is None:
            self._format = "jsonl" if first.text.lstrip().startswith("{") else "csv"
        return self._json_lines() if self._format == "jsonl" else self._csv()

    def _line(self) -> _FileLine | None:
        """Read the next line of the file; only its beginning if it is too long."""
        if self._reread:
            return self._reread.popleft()

        raw = self._source.readline(MAX_RECORD_BYTES + 1)
        if not raw:
            return None

        self._number += 1
        self.bytes_read += len(raw)

        fault = None
        if len(raw) > MAX_RECORD_BYTES and not raw.endswith(b"\n"):
            fault = f"longer than {MAX_RECORD_BYTES // 1024} KiB"
            while (rest := self._source.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
                self.bytes_read += len(rest)
            self.bytes_read += len(rest)
            raw = raw[:64]
        elif b"\0" in raw:
            fault = "it has U+0000"

        if self._number == 1:
            raw = raw.removeprefix(_UTF8_BOM)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text, fault = raw.decode(errors="replace"), fault or "not UTF-8"

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
        reader = csv.reader(self._csv_lines(), strict=True)
        names, key_at = self._header(reader)
        while True:
            self._record, self._record_size = [], 0
            try:
                row = next(reader, None)
                if row is None:
                    return
                if row:
                    yield self._from_row(row, names, key_at)

            except (_Rejected, csv.Error) as why:
                first = self._record[0]
                # A quote that does not end has swallowed lines that may be good: read them again.
                self._reread.extendleft(reversed(self._record[1:]))
                # The reader forgets what it has read of a record when it is asked for the next.
                reader = csv.reader(self._csv_lines(), strict=True)
                yield RejectedRecord(first.number, None, str(why))

    def _csv_lines(self) -> Iterator[str]:
        while (line := self._line()) is not None:
            self._record.append(line)
            self._record_size += len(line.text)
            if line.fault:
                raise _Rejected(line.fault)
            if self._record_size > MAX_RECORD_BYTES:
                raise _Rejected("a quote that does not end")
            yield line.text

    def _header(self, reader: Iterator[list[str]]) -> tuple[list[str], int]:
        try:
            names = [name.strip() for name in next(reader)]
        except (csv.Error, _Rejected) as failure:
            raise ConfigError(f"The header line cannot be read: {failure}.") from None
        named = [name for name in names if name]
        if len(set(named)) != len(named):
            raise ConfigError(f"The header line names a column twice: {', '.join(names)}.")
        if self._key is not None and self._key not in names:
            raise ConfigError(f"There is no column {self._key!r}, only {', '.join(names)}.")
        key = self._key or next((name for name in KEY_NAMES if name in names), names[0])
        if key != "key" and "key" in names:
            raise ConfigError(f"With {key!r} as the key, the column 'key' would be a second one; rename it.")
        return names, names.index(key)

    def _from_row(self, row: list[str], names: list[str], key_at: int) -> ParsedItem:
        if len(row) != len(names):
            raise _Rejected(f"{len(row)} cells, and the header has {len(names)}")
        key = row[key_at].strip()
        if not key:
            raise _Rejected(f"no key: {names[key_at]!r} is empty")
        item: dict[str, str | int] = {"key": key}
        for at, cell in enumerate(row):
            if cell and at != key_at and names[at]:
                item[names[at]] = _value(cell)
        return ParsedItem(self._record[0].number, key, _encode_item(item))


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
