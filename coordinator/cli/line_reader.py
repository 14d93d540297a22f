"""The lines of a file of any size, one at a time or as many as were read at once."""

from __future__ import annotations

import codecs
from typing import Protocol

MAX_LINE_BYTES = 64 * 1024
"""Bytes of one line without its end; of a longer one only the beginning is kept."""

NOT_TEXT = "\N{REPLACEMENT CHARACTER}"
"""The character that stands for what was no UTF-16."""

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BLOCK_BYTES = 128 * 1024
_BEGINNING_BYTES = 64


class ByteSource(Protocol):
    """A binary file, pipe or socket file: what gives what there is, up to so many bytes."""

    def read1(self, size: int = -1, /) -> bytes: ...


class LineReader:
    """Reads the lines of a file in UTF-8, or in UTF-16 with a mark at its beginning, of which it makes UTF-8.

    `bytes_read` counts the bytes read so far.
    """

    def __init__(self, source: ByteSource) -> None:
        self.bytes_read = 0
        self._source = source
        self._buffer = b""
        self._at = 0
        self._utf16: codecs.IncrementalDecoder | None = None

    @property
    def was_utf16(self) -> bool:
        """Whether the file is in UTF-16."""
        return self._utf16 is not None

    def line(self) -> tuple[bytes, bool] | None:
        """Return the next line with its end, and whether it was too long; None at the end of the file."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > MAX_LINE_BYTES:
                return self._skip_line(), True
            if not self._read_on():
                rest = self._take(len(self._buffer))
                return (rest, False) if rest else None

        if end - self._at > MAX_LINE_BYTES:
            return self._skip_line(), True
        return self._take(end + 1), False

    def block(self) -> bytes:
        """Return all whole lines that were read and not returned, or those that are read next; b"" if there are none.

        Some may be too long, and the last one of a file without an end is left to `line`.
        """
        if self._at == len(self._buffer):
            self._read_on()
        return self._take(self._buffer.rfind(b"\n", self._at) + 1)

    def lines_at_hand(self, most: int) -> list[str]:
        """Return some of the whole lines that were read and not returned, and will be: no more than `most`."""
        end = self._buffer.rfind(b"\n", self._at) + 1
        return [line.decode(errors="replace") for line in self._buffer[self._at : end].split(b"\n", most)[:-1]]

    def give_back(self, block: bytes) -> None:
        """Return these lines, which were returned last, once more."""
        self._at -= len(block)

    def _take(self, end: int) -> bytes:
        if end <= self._at:
            return b""
        taken = self._buffer[self._at : end]
        self._at = end
        return taken

    def _read_on(self) -> bool:
        data = self._source.read1(_BLOCK_BYTES)
        if self.bytes_read == 0:
            if len(data) == 1:
                data += self._source.read1(1)
            if data.startswith(_UTF16_MARKS):
                self._utf16 = codecs.getincrementaldecoder("utf-16")("replace")

        self.bytes_read += len(data)
        text = data if self._utf16 is None else self._utf16.decode(data, final=not data).encode()
        self._buffer = self._buffer[self._at :] + text
        self._at = 0
        return bool(data or text)

    def _skip_line(self) -> bytes:
        beginning = self._buffer[self._at : self._at + _BEGINNING_BYTES]
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            self._at = len(self._buffer)
            if not self._read_on():
                return beginning
        self._at = end + 1
        return beginning
