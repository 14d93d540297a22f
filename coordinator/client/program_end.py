"""The end of a checker program: it is asked to end, then killed, and always waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from typing import Any

_EXIT_GRACE = 2.0
"""Seconds that a program has to end before it is killed."""


def how_it_ended(code: int | None) -> str:
    """Say how a program has ended, by its exit code; None if it still runs."""
    if code is None:
        return "it cannot be ended"
    return f"exit status {code}" if code >= 0 else f"signal {-code}"


async def to_its_end(run: Coroutine[Any, Any, None]) -> None:
    """Await what must not be left half done; a cancellation that comes meanwhile is raised behind it."""
    task = asyncio.create_task(run, name="end of the program")
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error

    task.result()
    if cancelled is not None:
        raise cancelled


async def stop(child: asyncio.subprocess.Process, complaints: asyncio.Task[None], *, at_once: bool) -> None:
    """Close the program's input, kill it if it does not end in time, and wait for its last complaints."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(0 if at_once else _EXIT_GRACE):
            await child.wait()
    except TimeoutError:
        kill(child)
        with contextlib.suppress(TimeoutError):  # others may hold its pipes open, and are waited for, too
            async with asyncio.timeout(_EXIT_GRACE):
                await child.wait()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_EXIT_GRACE):
            await complaints


def kill(child: asyncio.subprocess.Process) -> None:
    """Kill the program and, where there are groups of processes, the programs that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
