"""The postmaster, as its pid file describes it."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from coordinator.embedded.account import run

DATABASE = "coordinator"


class Postmaster(NamedTuple):
    """The content of postmaster.pid, which may be left by a postmaster that has ended."""

    pid: int
    port: str
    sock: str
    status: str

    @classmethod
    def read(cls, data: Path) -> Postmaster | None:
        """Read postmaster.pid; None if it is missing or empty."""
        try:
            lines = (data / "postmaster.pid").read_text(errors="surrogateescape").split("\n")
        except (FileNotFoundError, NotADirectoryError):
            return None
        lines += [""] * 8
        return cls(int(lines[0]), lines[3], lines[4], lines[7].strip()) if lines[0].isdigit() else None

    @property
    def dsn(self) -> str:
        """The DSN of the database over the socket."""
        return f"postgresql://postgres@/{DATABASE}?host={quote(self.sock, safe='')}&port={self.port}"

    def answers(self) -> bool:
        """Tell whether it is ready and its socket takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            return self.status == "ready" and not probe.connect_ex(f"{self.sock}/.s.PGSQL.{self.port}")

    def works_in(self, data: Path) -> bool:
        """Tell whether the pid is a Postgres and, where the system tells, one of this folder."""
        if not Path("/proc/self").exists():  # macOS
            return "postgres" in run(["/bin/ps", "-o", "comm=", "-p", str(self.pid)]).stdout
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cwd").samefile(data)
        return False
