"""A program that stands for the first process of a container: orphans come to it, as far as Linux allows that.

Its child leaves an orphan, tells on standard output when it waits, and ends with 7 at SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

from coordinator.first_process import run_as_child

PR_SET_CHILD_SUBREAPER = 36


def serve() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    subprocess.run(["/bin/sh", "-c", "sleep 0.05 & sleep 0.05 &"], check=True)
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    while True:
        signal.pause()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    code = run_as_child(serve)
    sys.stdout.write(f"{os.getpid()} has reaped\n")
    sys.exit(code)
