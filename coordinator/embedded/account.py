"""The account that Postgres runs as: never root, which Postgres refuses, and one that can reach the folder."""

from __future__ import annotations

import io
import os
import pwd
import stat
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import structlog

from coordinator.errors import EmbeddedError

log = structlog.get_logger()

UNSHARE = "unshare"
"""Of util-linux; begins a command in a user namespace of its own."""

POSTGRES_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
"""The whole environment of Postgres; PG* variables of the caller would change its behaviour."""


class PostgresAccount(NamedTuple):
    """The account that Postgres runs as; `run_as` has subprocess's arguments to become it, empty if it is our own."""

    name: str
    uid: int
    run_as: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def owning(cls, data: Path) -> PostgresAccount:
        """Choose our own account; for root, which Postgres refuses, the data's owner, else `postgres` or `nobody`."""
        if (me := os.geteuid()) != 0:
            return cls(f"uid {me}", me)
        if has_cluster(data):
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
    def _of(cls, name: str, uid: int, gid: int) -> PostgresAccount:
        return cls(name, uid, {"user": uid, "group": gid, "extra_groups": ()})

    def check_reach(self, root: Path) -> None:
        """Raise EmbeddedError if the account cannot enter the folder or one of its parents."""
        for folder in [*reversed(root.parents), root] if self.run_as else []:
            if run(["/bin/sh", "-c", 'cd "$1"', "sh", folder], self).returncode:
                raise EmbeddedError(
                    f"{folder} is closed to {self.name}, the account that Postgres runs as (it refuses "
                    f"root): choose a data folder elsewhere, or `chmod o+x {folder}`"
                )

    def make_private(self, folder: Path) -> None:
        """Make a folder that only the account can enter, or check that it is one; raises EmbeddedError."""
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if self.run_as and found.st_uid == os.geteuid():  # never one that somebody else put there
            os.chown(folder, self.uid, self.run_as["group"], follow_symlinks=False)
            found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.uid:
            raise EmbeddedError(f"{folder} is in the way: expected a folder of {self.name}")
        close_to_others(folder)

    def passwd_entry(self) -> list[str]:
        """Return the words before a command that give the account an entry in the list of accounts, if it has none.

        initdb looks its own account up there.  In a user namespace of its own the account passes for one that has an
        entry; what it makes belongs to it all the same.

        Raises:
            EmbeddedError: it has none, and none can be given to it here.
        """
        with suppress(KeyError):
            pwd.getpwuid(self.uid)
            return []
        named = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), None)
        words = [UNSHARE, "--user", f"--map-user={named}", "--"]
        with suppress(OSError):
            if named is not None and run([*words, "/bin/sh", "-c", ":"], self).returncode == 0:
                return words
        raise EmbeddedError(
            f"uid {self.uid} has no entry in /etc/passwd, without which Postgres makes no database, and this system "
            "lets it have no namespace of its own: add an entry, run as an account that has one, or give --database"
        )


def run(
    command: Sequence[str | Path],
    account: PostgresAccount | None = None,
    text: str = "",
    alive: io.FileIO | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command as the account; `text` is its input, `alive` a lock file that it inherits, `timeout` in seconds."""
    return subprocess.run(  # noqa: S603 - no shell, and no word of it is from a stranger
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        check=False, cwd="/", env=POSTGRES_ENVIRONMENT, timeout=timeout, pass_fds=[alive.fileno()] if alive else [],
        **(account.run_as if account else {}),
    )  # fmt: skip


def close_to_others(path: Path) -> None:
    """Take a file's or folder's bits for others and for its group away: a volume's `fsGroup` sets them at each mount.

    Postgres refuses data that others can enter.  Raises OSError if it is not ours.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.chmod(mode & 0o700)
        log.warning("others could enter, its mode was put right", path=str(path), mode=f"{mode:04o}")


def has_cluster(data: Path) -> bool:
    """Tell whether the folder has data of Postgres; raises EmbeddedError if it has something else."""
    if (data / "PG_VERSION").exists():
        return True
    if data.exists() and any(data.iterdir()):
        raise EmbeddedError(f"{data} is in the way: expected data of Postgres, but it has no PG_VERSION")
    return False
