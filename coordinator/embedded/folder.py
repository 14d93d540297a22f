"""The data folder: its lock files, and its errors."""

from __future__ import annotations

import fcntl
import io
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from coordinator.errors import EmbeddedError

LOCK_POLL_INTERVAL = 0.02
"""Seconds between two attempts to take a lock."""


class FolderLock:
    """The lock by which only this program serves from a folder; made by own_folder()."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def release(self) -> None:
        """Release the lock; safe to repeat."""
        if not self._file.closed:
            self._file.truncate(0)
            self._file.close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def own_folder(root: Path) -> FolderLock:
    """Take the folder for this program until release(), or until it ends in whatever way.

    Raises:
        EmbeddedError: another program has it (the message has its pid, and since when), or the folder
            cannot be made or written.
    """
    root = root.expanduser().absolute()
    with folder_errors(root):
        make_root(root)

        path = root / "owner.lock"
        end = time.monotonic() + 1.0
        while (file := lock(path)) is None:
            if (holder := _holder(path)) or time.monotonic() > end:
                raise EmbeddedError(
                    f"{root} is in use by another coordinator ({holder or 'pid unknown'}): "
                    f"stop that one first, or choose another data folder"
                )
            time.sleep(LOCK_POLL_INTERVAL)  # the owner has not written its pid yet, or is ending

        file.truncate(0)
        since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
        file.write(f"pid {os.getpid()}, since {since}".encode())
        return FolderLock(file)


def make_root(root: Path) -> None:
    """Make the data folder if it is missing."""
    if not root.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        # Ours, just made: root's Postgres, of another account, has to pass through; nobody may list it.
        root.chmod(0o711 if os.geteuid() == 0 else 0o700)


def open_private(path: Path, flags: int = 0) -> io.FileIO:
    """Open a file that only our account may read, and make it if it is missing; follows no link."""
    return io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600), "r+")


def lock(path: Path, *, shared: bool = False) -> io.FileIO | None:
    """Take a lock file without waiting; None if another program has it. It is free once all have closed it."""
    file = open_private(path)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _holder(path: Path) -> str:
    """Return the text that the owner of a lock has written into it; empty if that owner has ended."""
    text = path.read_text()
    with suppress(ProcessLookupError, PermissionError):
        if found := re.match(r"pid (\d+)", text):
            os.kill(int(found[1]), 0)
            return text
    return ""


@contextmanager
def folder_errors(root: Path) -> Iterator[None]:
    """Turn errors of the system, and timeouts, into EmbeddedError with the folder's name."""
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise EmbeddedError(f"{root}: not done in time: {error}") from error
    except OSError as error:
        raise EmbeddedError(
            f"{root} does not do as a data folder: {error}; expected one on a disk of this machine, with "
            f"room, that uid {os.geteuid()} may read and write"
        ) from error
