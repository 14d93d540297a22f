"""The first process of a container: it has to pass on signals, and to reap what others leave behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def is_first_process() -> bool:
    """Whether the kernel hands all orphans of its container to this process."""
    return os.getpid() == 1


def run_as_child(serve: Callable[[], int]) -> int:
    """Run `serve` in a child, reap and pass on signals beside it; returns its exit code, or 128 and its signal.

    The child returns from here, too, with what `serve` returns.  It is a process of its own since a server that waits
    for its own children must not have one of them reaped by somebody else.  To be called before there are threads.
    """
    # Before the child is there, so that no signal comes in between.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        return serve()

    while True:
        number = signal.sigwait({*_PASSED_ON, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(child, number)
        elif (code := _reap(child)) is not None:
            return code


def _reap(child: int) -> int | None:
    """Reap all processes that have ended; returns the exit code of the child if it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
