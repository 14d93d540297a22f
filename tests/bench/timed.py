"""`coordinator` that adds up the processor time of its own observing, and writes the sum to its output on SIGUSR1.

Observing are the counting of statements, events, waits in histograms, and the recorder of the past.  What clients did
is not part of it, since the rules of health go by it.  What timing itself takes is measured first, and taken off.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from time import thread_time
from types import FrameType
from typing import Any

import asyncpg
import msgspec

from coordinator.cli import main
from coordinator.observe.events import Events
from coordinator.observe.histogram import Histogram
from coordinator.stats.recorder import Recorder
from coordinator.store.statement_stats import CountedConnection

COUNTED = ("fetch", "fetchrow", "fetchval", "execute", "copy_records_to_table", "copy_to_table")

CALLS = 20_000
"""Calls by which the cost of timing is measured."""

Step = Callable[[float], None]
Run = Coroutine[Any, Any, Any]


class Spent:
    """Seconds of processor that went into observing until now."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.seconds += seconds

    def subtract(self, seconds: float) -> None:
        self.seconds -= seconds

    def tell(self, signal_number: int, frame: FrameType | None) -> None:
        """Write a line with the sum."""
        sys.stdout.buffer.write(msgspec.json.encode({"observing_seconds": self.seconds}) + b"\n")
        sys.stdout.flush()


class _Timed:
    """A coroutine each of whose steps is timed."""

    def __init__(self, run: Run, step: Step) -> None:
        self._run = run
        self._step = step

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._run.send
        value: Any = None
        while True:
            begun = thread_time()
            try:
                waits_for = resume(value)
            except StopIteration as end:
                return end.value
            finally:
                self._step(thread_time() - begun)

            try:
                resume, value = self._run.send, (yield waits_for)
            except BaseException as error:
                resume, value = self._run.throw, error


def time_function(which: type, name: str, spent: Spent, timing: float) -> None:
    """Add up every call of a method, less what timing adds to it."""
    function = getattr(which, name)

    @functools.wraps(function)
    def timed(*args: Any, **options: Any) -> Any:
        begun = thread_time()
        try:
            return function(*args, **options)
        finally:
            spent.add(thread_time() - begun - timing)

    setattr(which, name, timed)


def time_coroutine(which: type, name: str, step: Step) -> None:
    """Tell of every step of an asynchronous method how long it took."""
    function = getattr(which, name)

    @functools.wraps(function)
    async def timed(*args: Any, **options: Any) -> Any:
        return await _Timed(function(*args, **options), step)

    setattr(which, name, timed)


def time_difference(base: type, heir: type, name: str, spent: Spent, timing: float) -> None:
    """Add up what an asynchronous method takes beside that of the base, which it calls, less what timing adds."""
    time_coroutine(base, name, spent.subtract)
    time_coroutine(heir, name, spent.add)
    time_function(heir, name, spent, timing)  # makes the coroutine: once a call


class _Base:
    def nothing(self) -> None: ...

    async def wait(self) -> None:
        await asyncio.sleep(0)


class _Heir(_Base):
    async def wait(self) -> None:
        await super().wait()


async def cost_of_timing() -> tuple[float, float]:
    """Measure the seconds that timing adds to a function, and to a coroutine beside the one it calls."""
    spent, heir = Spent(), _Heir()
    time_function(_Base, "nothing", spent, 0.0)
    for _ in range(CALLS):
        heir.nothing()
    function = spent.seconds / CALLS

    spent.seconds = 0.0
    time_difference(_Base, _Heir, "wait", spent, 0.0)
    for _ in range(CALLS):
        await heir.wait()
    return function, spent.seconds / CALLS


def time_observing(spent: Spent) -> None:
    """Add up what observing takes; of statements only what counting them adds to the library's own part."""
    function, coroutine = asyncio.run(cost_of_timing())
    for name in COUNTED:
        time_difference(asyncpg.Connection, CountedConnection, name, spent, coroutine)
    time_function(Events, "emit", spent, function)
    time_function(Histogram, "add", spent, function)
    time_coroutine(Recorder, "write", spent.add)
    time_coroutine(Recorder, "_tidy", spent.add)


if __name__ == "__main__":
    observing = Spent()
    time_observing(observing)
    signal.signal(signal.SIGUSR1, observing.tell)
    main()
