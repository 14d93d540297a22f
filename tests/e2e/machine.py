"""A machine beside this one: a systemd of its own, on a copy of the files here whose changes are in memory.

systemd-nspawn keeps it apart: its own processes, `/tmp`, `/dev` and network, and kernel settings that it cannot change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]

# $1 folder in which it lives.  The overlay hides nothing of this machine, and lets nothing be changed.
_START = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=4g tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
exec systemd-nspawn --quiet --directory="$1/root" --machine=fresh --register=no --keep-unit --link-journal=no \\
    --private-network --boot --console=pipe systemd.unit=basic.target
"""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FOR_DOWNLOADS = ("PIP_", "SSL_", "REQUESTS_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


class NoMachine(Exception):
    """Raised where none can be made; the message says why."""


class Machine:
    """A machine that runs; `leader` is its first process."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        mounts = {line.split()[4]: line for line in Path(f"/proc/{leader}/mountinfo").read_text().splitlines()}
        assert " - overlay " in mounts["/"], "these are the files of this machine"
        assert " - tmpfs " in mounts["/tmp"], "this is the /tmp of this machine"

    def run(self, script: str, *, account: str = "root", network: bool = False, patience: float = 120) -> str:
        """Run a script to its end in the folder of the sources; what it prints.

        `network`: with the network of this machine, for downloads.
        """
        home = "/root" if account == "root" else f"/home/{account}"
        words = [] if network else ["--net"]
        kept = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(_FOR_DOWNLOADS)]
        enter = ["nsenter", f"--target={self._leader}", "--mount", "--pid", "--uts", "--ipc", "--cgroup", *words, "--"]
        become = ["runuser", "-u", account, "--", "env", "-i", f"PATH={PATH}", f"HOME={home}", "LANG=C.UTF-8", *kept]
        prepared = f"cd /usr/src/coordinator; export XDG_RUNTIME_DIR=/run/user/$(id -u); {script}"
        done = subprocess.run(
            [*enter, *become, "sh", "-ec", prepared], capture_output=True, text=True, timeout=patience, check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644, account: str = "root") -> None:
        """Write a file."""
        file = Path(f"/proc/{self._leader}/root{path}")
        self.run(f"install -D -m {mode:o} -o {account} /dev/null {path}")
        file.write_text(text)

    def until(self, script: str, what: str, patience: float = 60) -> str:
        """Run a script again and again, until it succeeds; what it prints then."""
        end = time.monotonic() + patience
        while True:
            try:
                return self.run(script)
            except AssertionError as failure:
                if time.monotonic() > end:
                    raise AssertionError(f"{what}: {failure}") from failure
            time.sleep(0.3)


@contextmanager
def running() -> Iterator[Machine]:
    """Run one, with the sources of this tree in /usr/src/coordinator, until the end.

    Raises:
        NoMachine: it cannot be made here.
    """
    if os.geteuid() != 0:
        raise NoMachine("a machine of its own needs root")
    if shutil.which("systemd-nspawn") is None:
        raise NoMachine("a machine of its own needs systemd-nspawn (Debian's package systemd-container)")

    folder = Path(tempfile.mkdtemp(prefix="coordinator-machine-", dir="/var/tmp"))
    log = folder.with_suffix(".log")
    words = ["unshare", "--mount", "bash", "-c", _START, "bash", str(folder)]
    with log.open("wb") as file:
        outer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    leader = None
    try:
        leader = _leader(outer, log)
        machine = Machine(leader)
        _copy_sources(leader)
        try:
            machine.until("systemctl is-system-running --wait; ip link set lo up", "it does not start")
        except AssertionError as failure:
            raise NoMachine(str(failure)) from failure
        yield machine
    finally:
        if leader is not None:
            os.kill(leader, 9)  # and so all of its processes
        else:
            outer.kill()
        outer.wait()
        folder.rmdir()
        log.unlink()


def _leader(outer: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for the first process of the machine."""
    end = time.monotonic() + 30
    while time.monotonic() < end and outer.poll() is None:
        for child in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split():
            with suppress(FileNotFoundError):  # it has ended
                words = Path(f"/proc/{child}/cmdline").read_bytes()
                if b"systemd.unit=" in words and b"nspawn" not in words:  # not as long as it has not become systemd
                    return int(child)
        time.sleep(0.1)
    raise NoMachine(f"no machine of its own can be made here: {log.read_text()[-300:]}")


def _copy_sources(leader: int) -> None:
    """Copy what git knows of this tree, or would take."""

    def run(words: list[str], given: bytes) -> bytes:
        return subprocess.run(words, cwd=ROOT, input=given, capture_output=True, check=True).stdout

    names = run(["git", "ls-files", "-coz", "--exclude-standard"], b"")
    there = b"\0".join(name for name in names.split(b"\0") if (ROOT / name.decode()).is_file())
    archive = run(["tar", "-c", "--null", "--owner=root", "--group=root", "-T", "-"], there)
    script = "mkdir -p /usr/src/coordinator && tar -x -C /usr/src/coordinator && chmod -R a+rX /usr/src/coordinator"
    run(["nsenter", f"--target={leader}", "--mount", "--pid", "sh", "-ec", script], archive)
