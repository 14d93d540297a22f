"""Cancels a coroutine, with all tasks that it begins, at every place at which any of them can be made to stop.

A task that meets its cancellation and goes on, or ends with another error, is found by the place where that was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import Context, ContextVar
from pathlib import Path
from types import CodeType
from typing import Any, TypeAlias

import coordinator
from tests.bounded import within

PROGRAM = str(Path(coordinator.__file__).parent)

ENDS_WITHIN = 5.0
"""Seconds that a cancelled task may take to end."""

NEW_PLACE_WITHIN = 0.05
"""Seconds, of what else goes on beside it, after which no new place is expected any more."""

MOST_STOPS_OF_A_LINE = 3
"""Stops one after the other at the same line that are told apart: within libraries, there may be many."""

Lines: TypeAlias = tuple[tuple[str, int], ...]
"""The lines of the program from the beginning of a task to where it waits, each with its file."""

Place: TypeAlias = tuple[Lines, int]
"""Where a task waits, and how often it did there in a row."""

_trial: ContextVar[Trial | None] = ContextVar("trial", default=None)


class Trial:
    """One run of a coroutine, to be cancelled at the first place that was not tried before."""

    def __init__(self, tried: set[Place], strike: Callable[[], object]) -> None:
        self.place: Place | None = None
        self.ripe = asyncio.Event()
        """Set when it is cancelled, or waits for no new place any more."""
        self._tried = tried
        self._strike = strike
        self.task: asyncio.Task[None] | None = None

    def stopped(self, place: Place) -> None:
        """Note that one of the tasks waits at a place."""
        if self.ripe.is_set():
            return
        if place not in self._tried:
            self._tried.add(place)
            self.place = place
            self.ripe.set()
            asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        assert self.task is not None
        self._strike()
        self.task.cancel()


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells where it stops."""

    def __init__(self, run: Coroutine[Any, Any, Any], trial: Trial) -> None:
        self._run = run
        self._trial = trial
        self._lines: Lines = ()
        self._times = 0

    def send(self, value: Any) -> Any:
        return self._stopped(self._run.send(value))

    def throw(self, *thrown: Any) -> Any:
        return self._stopped(self._run.throw(*thrown))

    def close(self) -> None:
        self._run.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run.__await__()

    def _stopped(self, waits_for: Any) -> Any:
        before, self._lines = self._lines, _lines_of(self._run)
        self._times = min(self._times + 1, MOST_STOPS_OF_A_LINE) if self._lines == before else 1
        self._trial.stopped((self._lines, self._times))
        return waits_for


def _lines_of(run: Any) -> Lines:
    lines = []
    while run is not None:
        frame = getattr(run, "cr_frame", None) or getattr(run, "ag_frame", None) or getattr(run, "gi_frame", None)
        if frame is not None and _is_ours(frame.f_code):
            lines.append((frame.f_code.co_filename.removeprefix(PROGRAM), frame.f_lineno))
        run = getattr(run, "cr_await", None) or getattr(run, "ag_await", None) or getattr(run, "gi_yieldfrom", None)
    return tuple(lines)


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(PROGRAM)


def _make_task(
    loop: asyncio.AbstractEventLoop, run: Coroutine[Any, Any, Any], context: Context | None = None, **more: Any
) -> asyncio.Task[Any]:
    trial = _trial.get()
    if trial is not None:
        run = _Watched(run, trial)
    return asyncio.Task(run, loop=loop, context=context, **more)


@contextlib.contextmanager
def watching_tasks() -> Iterator[None]:
    """Let the loop's tasks be watched if they belong to a trial."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_make_task)  # type: ignore[arg-type]  # the context comes by name
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def cancel_everywhere(
    run: Callable[[], Coroutine[Any, Any, None]], strike: Callable[[], object]
) -> tuple[set[Place], list[str]]:
    """Run a coroutine again and again, cancelled at another place each time; within `watching_tasks`.

    `strike` is called just before each.  Returns the places, and what went wrong.
    """
    tried: set[Place] = set()
    wrong: list[str] = []

    while True:
        trial = Trial(tried, strike)
        mark = _trial.set(trial)
        trial.task = asyncio.get_running_loop().create_task(run())
        _trial.reset(mark)

        with contextlib.suppress(TimeoutError):
            await within(trial.ripe.wait(), NEW_PLACE_WITHIN)
        if trial.place is None:
            trial.ripe.set()
            trial.task.cancel()
        await asyncio.wait([trial.task], timeout=ENDS_WITHIN)

        if not trial.task.done():
            wrong.append(f"goes on, cancelled at {trial.place}")
            trial.task.cancel()
        elif not trial.task.cancelled():
            wrong.append(f"ends with {trial.task.exception()!r}, cancelled at {trial.place}")
        if trial.place is None or len(wrong) > 3:
            return tried, wrong
