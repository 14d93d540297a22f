"""The spool: computed results that are not acknowledged yet, on disk.

One append-only file of JSON lines for each client that runs.  It says which buckets are held, under which
claim, and which results of theirs the server has not acknowledged:

    {"hold": BUCKET, "claim": N, "service": S}      granted, or granted anew
    {"keep": BUCKET, "n": N, "raw": {…}}            a result; counts as kept once it is synced
    {"sent": BUCKET, "ns": [N, …]}                  acknowledged, or refused for good
    {"end": BUCKET}                                 not held any more

Only `keep` waits for the disk: a lost line of another kind leads to a repeat, which the server knows as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec import UNSET, Raw, UnsetType

from coordinator.client.file_lock import BINARY, open_locked

log = logging.getLogger("coordinator.client")

_COMPACT_AT_BYTES = 1 << 20
"""Bytes; a file that is longer, and mostly made of lines that count no more, is rewritten."""

_MAX_SLOTS = 256


@dataclass(frozen=True, slots=True)
class SpooledResult:
    """A result, encoded for the wire.  `settles` is false for a part (`complete: false`)."""

    number: int
    item: int
    raw: bytes
    settles: bool


@dataclass(slots=True)
class SpooledBucket:
    """A held bucket and its unacknowledged results, by their number."""

    service: str
    claim: int
    results: dict[int, SpooledResult] = field(default_factory=dict)


class _SpoolLine(msgspec.Struct, omit_defaults=True):
    """A line of the file: `hold`, `keep`, `sent` or `end` has the bucket's id."""

    hold: str | None = None
    claim: int = 0
    service: str = ""
    keep: str | None = None
    n: int = 0
    raw: Raw | UnsetType = UNSET
    sent: str | None = None
    ns: list[int] = []
    end: str | None = None


class _ResultHead(msgspec.Struct):
    """The fields of a result that the spool reads."""

    item: int
    complete: bool = True


_encode = msgspec.json.Encoder().encode
_line_decoder: msgspec.json.Decoder[_SpoolLine] = msgspec.json.Decoder(_SpoolLine)
_result_decoder: msgspec.json.Decoder[_ResultHead] = msgspec.json.Decoder(_ResultHead)


class Spool:
    """The file of one running client; several clients of one id take a file each.

    `buckets` maps bucket ids to the held buckets.  This process reads `buckets`; the file is for the next one.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.buckets: dict[str, SpooledBucket] = {}
        self._lock_file = lock
        self._syncing = asyncio.Lock()
        self._written = self._synced = 0
        self._next = 1
        self._size = 0
        self._compact_at = _COMPACT_AT_BYTES

        for line in _read(path):
            self._apply(line)
        self._file = -1

    @classmethod
    def open(cls, folder: Path, client_id: str) -> Spool:
        """Take the first free file of this client, and take over the results in files that no process owns.

        Raises:
            OSError: the folder cannot be used.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        spool: Spool | None = None

        for slot in range(_MAX_SLOTS):
            path = folder / f"{client_id}.{slot}.spool"
            if spool is not None and not path.exists():
                break

            lock = open_locked(path.with_suffix(".lock"))
            if lock is None:
                continue
            if spool is None:
                spool = cls(path, lock)
                continue
            try:
                spool._take_over(path)
            finally:
                os.close(lock)

        if spool is None:
            raise OSError(f"{_MAX_SLOTS} clients run as {client_id} already")
        spool._rewrite()
        return spool

    def close(self) -> None:
        """Release the file; its results stay for the next process."""
        if not self.buckets:
            os.ftruncate(self._file, 0)
        os.close(self._file)
        os.close(self._lock_file)

    def add_bucket(self, bucket_id: str, service: str, claim: int) -> None:
        """Note a granted bucket; if it is granted again, its results stay."""
        known = self.buckets.get(bucket_id)
        if known is None:
            self.buckets[bucket_id] = SpooledBucket(service, claim)
        else:
            known.claim = claim
        self._append(_SpoolLine(hold=bucket_id, claim=claim, service=service))

    async def add_result_durably(self, bucket_id: str, item: int, raw: bytes, settles: bool) -> SpooledResult:
        """Keep one result; it is on disk when this returns.

        Raises:
            OSError: it cannot be written; it is kept in memory alone.
        """
        result = self.add_result(bucket_id, item, raw, settles)
        await self.sync()
        return result

    def add_result(self, bucket_id: str, item: int, raw: bytes, settles: bool) -> SpooledResult:
        """Keep one result; it survives a crash only after `sync`."""
        result = SpooledResult(self._next, item, raw, settles)
        self._next += 1
        self.buckets[bucket_id].results[result.number] = result
        self._append(_SpoolLine(keep=bucket_id, n=result.number, raw=Raw(raw)))
        return result

    async def sync(self) -> None:
        """Wait until all that was added is on disk; those who wait together share one sync."""
        mine = self._written
        async with self._syncing:
            if self._synced >= mine:
                return
            reached = self._written
            await asyncio.to_thread(os.fsync, self._file)
            self._synced = reached

    def forget(self, bucket_id: str, results: Iterable[SpooledResult]) -> None:
        """Remove results that need not be sent any more."""
        bucket = self.buckets.get(bucket_id)
        if bucket is None:
            return
        gone = [result.number for result in results if bucket.results.pop(result.number, None) is not None]
        if gone:
            self._append(_SpoolLine(sent=bucket_id, ns=gone))

    def remove_bucket(self, bucket_id: str) -> None:
        """Remove a bucket that is not held any more, with all its results."""
        if self.buckets.pop(bucket_id, None) is not None:
            self._append(_SpoolLine(end=bucket_id))

    def _append(self, line: _SpoolLine) -> None:
        data = _encode(line) + b"\n"
        self._written += 1
        try:
            if os.write(self._file, data) < len(data):
                os.write(self._file, b"\n")  # the disk is full; the next line must not join this one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as failure:
            if line.keep is not None:
                raise
            log.warning("spool %s: %s", self.path, failure.strerror)
        self._size += len(data)
        # A sync under way uses the file that compacting would close.
        if self._size > self._compact_at and not self._syncing.locked():
            self._rewrite()

    def _rewrite(self) -> None:
        """Write the lines that still count to a new file, and replace the old one by it atomically."""
        draft = self.path.with_suffix(".draft")
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
        lines = b"".join(_encode(line) + b"\n" for line in self._lines())
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)

        if self._file >= 0:
            os.close(self._file)  # Windows replaces no file that is open
        try:
            draft.replace(self.path)
        finally:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | BINARY)
        self._size = len(lines)
        self._synced = self._written
        self._compact_at = max(_COMPACT_AT_BYTES, 2 * self._size)

    def _lines(self) -> Iterator[_SpoolLine]:
        for bucket_id, bucket in self.buckets.items():
            yield _SpoolLine(hold=bucket_id, claim=bucket.claim, service=bucket.service)
            for result in bucket.results.values():
                yield _SpoolLine(keep=bucket_id, n=result.number, raw=Raw(result.raw))

    def _apply(self, line: _SpoolLine) -> None:
        if line.hold is not None:
            known = self.buckets.setdefault(line.hold, SpooledBucket(line.service, line.claim))
            known.claim = line.claim
        elif line.keep is not None and line.keep in self.buckets:
            raw = bytes(line.raw or b"")
            result = _result_decoder.decode(raw)
            self.buckets[line.keep].results[line.n] = SpooledResult(line.n, result.item, raw, result.complete)
            self._next = max(self._next, line.n + 1)
        elif line.sent is not None and line.sent in self.buckets:
            for n in line.ns:
                self.buckets[line.sent].results.pop(n, None)
        elif line.end is not None:
            self.buckets.pop(line.end, None)

    def _take_over(self, path: Path) -> None:
        """Take over the results that an ended process left in its file."""
        other = Spool(path, self._lock_file)
        for bucket_id, theirs in other.buckets.items():
            mine = self.buckets.setdefault(bucket_id, SpooledBucket(theirs.service, theirs.claim))
            mine.claim = max(mine.claim, theirs.claim)
            for result in theirs.results.values():
                mine.results[self._next] = SpooledResult(self._next, result.item, result.raw, result.settles)
                self._next += 1
        if other.buckets:
            self._rewrite()  # ours has it before the other one loses it
            os.truncate(path, 0)


def _read(path: Path) -> Iterator[_SpoolLine]:
    """Read the whole lines; a crash may have torn the last one."""
    with contextlib.suppress(FileNotFoundError):
        for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
            if not text:
                continue
            try:
                line = _line_decoder.decode(text)
                if line.keep is not None:
                    _result_decoder.decode(line.raw or b"")
            except msgspec.MsgspecError:
                log.warning("spool %s: line %d is torn and is left out", path, number)
                continue
            yield line
