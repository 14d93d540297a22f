"""Items from a file of any size, one record at a time: CSV with a header line, or JSON Lines.

What is wrong with one record refuses that record and no other; nothing is kept of those that are past.
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
"""Bytes of one record; the server takes less than a tenth of it for one item."""

KEY_NAMES = ("key", "screen_name")
Format = Literal["csv", "jsonl"]

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_encode_item = msgspec.json.Encoder().encode
_decode_record = msgspec.json.Decoder().decode
_UTF8_BOM = b"\xef\xbb\xbf"
_INT64 = 2**63


class ByteSource(Protocol):
    """Binary file, pipe or socket file: what `readline` can be called on."""

    def readline(self, limit: int = -1, /) -> bytes: ...


class ParsedItem(NamedTuple):
    """One item as JSON, and the line that it began on."""

    line: int
    key: str
    json: bytes


class RejectedRecord(NamedTuple):
    """One record that is no item."""

    line: int
    key: str | None
    reason: str


class _Rejected(Exception):
    """Why the record in hand is no item."""


class _FileLine(NamedTuple):
    number: int
    text: str
    fault: str | None
    """Why a record with this line is refused, if it is."""


class ItemFile:
    """The records of one file, each a `ParsedItem` or a `RejectedRecord`; `bytes_read` tells how far it has come.

    `key` names the column or field that is the key; unless given: `key`, `screen_name`, or the first column.

    Raises:
        ConfigError: the header cannot be used; nothing else makes a file useless as a whole.
    """

    def __init__(self, source: ByteSource, key: str | None = None, format_: Format | None = None) -> None:
        self.bytes_read = 0
        self._source = source
        self._key = key
        self._format = format_
        self._number = 0
        self._again: deque[_FileLine] = deque()
        self._taken: list[_FileLine] = []
        self._taken_size = 0

    def __iter__(self) -> Iterator[ParsedItem | RejectedRecord]:
        while (first := self._line()) is not None and not first.text.strip():
            pass
        if first is None:
            return iter(())
        self._again.append(first)
        if self._format is None:
            self._format = "jsonl" if first.text.lstrip().startswith("{") else "csv"
        return self._json_lines() if self._format == "jsonl" else self._csv()

    def _line(self) -> _FileLine | None:
        """The next physical line; only its beginning if it is too long."""
        if self._again:
            return self._again.popleft()
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
        name = self._key or next((one for one in KEY_NAMES if one in record), "key")
        key = record.pop(name, None)
        if isinstance(key, int) and not isinstance(key, bool):
            key = str(key)
        if not isinstance(key, str) or not key:
            raise _Rejected(f"no key: expected a text as {name!r}")
        if "key" in record:
            raise _Rejected(f"with {name!r} as the key, 'key' would be a second one")
        # Two levels stand above an item in its frame; what is too deep would sink its neighbours.
        nested = any(isinstance(value, dict | list) for value in record.values())
        if (nested or "\\u" in line.text) and (fault := forbidden([[{"key": key, **record}]])) is not None:
            raise _Rejected(fault.message)
        return ParsedItem(line.number, key, _encode_item({"key": key, **record}))

    # CSV

    def _csv(self) -> Iterator[ParsedItem | RejectedRecord]:
        reader = csv.reader(self._csv_lines(), strict=True)
        names, key_at = self._header(reader)
        while True:
            self._taken, self._taken_size = [], 0
            try:
                row = next(reader, None)
                if row is None:
                    return
                if row:
                    yield self._from_row(row, names, key_at)
            except (_Rejected, csv.Error) as why:
                first = self._taken[0]
                # A quote that does not end has taken lines along that may be good.
                self._again.extendleft(reversed(self._taken[1:]))
                # The reader forgets what it has read of a record when it is asked for the next.
                reader = csv.reader(self._csv_lines(), strict=True)
                yield RejectedRecord(first.number, None, str(why))

    def _csv_lines(self) -> Iterator[str]:
        while (line := self._line()) is not None:
            self._taken.append(line)
            self._taken_size += len(line.text)
            if line.fault:
                raise _Rejected(line.fault)
            if self._taken_size > MAX_RECORD_BYTES:
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
        key = self._key or next((one for one in KEY_NAMES if one in names), names[0])
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
        return ParsedItem(self._taken[0].number, key, _encode_item(item))


def _value(cell: str) -> str | int:
    if _WHOLE_NUMBER.fullmatch(cell) and -_INT64 <= (number := int(cell)) < _INT64:
        return number
    return cell


def size_of(file: BinaryIO) -> int | None:
    """Bytes of a file, None if it is a pipe."""
    if not file.seekable():
        return None
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end
