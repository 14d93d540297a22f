"""A checker in any language: a program that reads items and writes results, one JSON object a line.

To its standard input go `{"item": 7, "key": "ada", …attributes…, "service": "dm_check", "profile": {…}}`;
from its standard output come, in any order, `{"item": 7, …result…}`, or one of

    {"item": 7, "$skip": "why"}               this item cannot be checked
    {"item": 7, "$upstream_limited": 900}     the outside API takes nothing for so many seconds
    {"item": 7, "$upstream_out": "why"}       the outside API is out, or cannot be reached

It lives as long as the daemon, and is started again when it dies, or hangs over one item; when it has died with several
items, it gets them one at a time, so that the one over which it dies fails alone.  What it writes to standard
error, or writes that is no result, goes to the daemon's log, a bounded number of lines.  At the end its input is
closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import subprocess
from types import TracebackType
from typing import Any, Self

import msgspec

from coordinator.client.backoff import Backoff
from coordinator.client.checkers import Checker, CheckFailed, NoResultInTime, ProgramDied, UpstreamLimited, UpstreamOut
from coordinator.client.crash_suspects import CrashSuspects
from coordinator.client.limited_log import LimitedLog
from coordinator.client.program_end import how_it_ended, kill, stop, to_its_end
from coordinator.client.program_start import why_not_run, why_not_started
from coordinator.client.program_watch import QUIET_AFTER, ProgramWatch
from coordinator.client.service_work import ITEM_TIMEOUT
from coordinator.errors import ConfigError
from coordinator.wording import counted

log = logging.getLogger("coordinator.client")

_MAX_HANGS = 3
"""Items in a row over which the program hangs, without a result in between, after which it is given up."""

_MAX_LINE_BYTES = 64 << 20
_NEW_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
_CHUNK_BYTES = 65_536

_DEFAULT_UPSTREAM_WAIT = 60.0
"""Seconds to wait if `$upstream_limited` is not a number."""

_EXPECTED_LINE = 'expected a line such as {"item": 7, "dm": "DM"}, with the fields that the service wants'
_SHOWN_OF_LINE = 200
"""Characters of a line that is no result that are shown."""

_encode = msgspec.json.Encoder().encode
_answer_decoder = msgspec.json.Decoder(dict[str, Any])


class ProgramFailed(ConfigError):
    """Raised when the program dies or hangs again and again, or cannot be started."""


class CheckerProgram:
    """A long-lived program, inside `async with`.  `checker(service)` gives its checker for one service.

    If it gives no result for the oldest of its items within `item_timeout` seconds, that item has failed, and the
    program is started again for the others.
    """

    def __init__(self, command: str, backoff: Backoff | None = None, item_timeout: float = ITEM_TIMEOUT) -> None:
        try:
            self._command = _split(command)
        except ValueError as failure:
            raise ConfigError(f"The command {command!r} cannot be read: {failure}.") from None

        if not self._command:
            raise ConfigError("The command is empty.")
        if shutil.which(self._command[0]) is None:
            raise ConfigError(why_not_run(self._command[0]))

        self._backoff = backoff if backoff is not None else Backoff(0.5, 10.0)
        self._requests: dict[int, bytes] = {}
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._watch = ProgramWatch(item_timeout)
        self._watch_changed = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._ended = ""
        self._restarts = True
        self._suspects = CrashSuspects()
        self._in_check: dict[int, None] = {}
        self._hangs = 0
        self._hung = False
        self._child: asyncio.subprocess.Process | None = None
        self._failure: ProgramFailed | None = None
        self._item_free = asyncio.Condition()
        self._said = LimitedLog("the program says")
        self._garbage = LimitedLog("the program wrote a line that is no result")
        self._wrote_garbage = False

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._running = [
            self._tasks.create_task(self._run_until_failed(), name="program"),
            self._tasks.create_task(self._keep_watch(), name="program watch"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        # Only a cancellation is the group's business; other errors of the caller stay as they are.
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._tasks.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))

    async def ends_within(self, seconds: float) -> str | None:
        """Return how the program has ended, if it does so within so many seconds, although nothing is asked of it.

        It is not started again then.
        """
        self._restarts = False
        try:
            async with asyncio.timeout(seconds):
                await self._has_ended.wait()
        except TimeoutError:
            return None
        if self._failure is not None:
            return str(self._failure)
        return f"The program ends at once, without being asked ({self._ended})."

    def checker(self, service: str) -> Checker:
        """Return the program as a checker of one service's items.

        It raises CheckFailed, UpstreamLimited, or ProgramFailed when the program has been given up.
        """

        async def check(item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
            return await self._check({**item, "service": service, "profile": profile})

        return check

    async def _check(self, request: dict[str, Any]) -> dict[str, Any]:
        item: int = request["item"]
        async with self._item_free:  # two services may check the same item at once; answers name the item alone
            await self._item_free.wait_for(lambda: item not in self._answers)
            answer = self._answers[item] = asyncio.get_running_loop().create_future()

        self._requests[item] = _encode(request) + b"\n"
        try:
            if self._failure is not None:
                raise self._failure
            self._hand_over()
            result: dict[str, Any] = await answer
            return result
        finally:
            del self._answers[item]
            self._forget(item)
            self._hand_over()
            async with self._item_free:
                self._item_free.notify_all()

    def _hand_over(self) -> None:
        """Write to the program the items that it may have now: all, or the one that is tried alone after a death."""
        if self._child is None or self._child.stdin is None or self._child.stdin.is_closing():
            return

        alone = self._suspects.next
        for item in list(self._requests) if alone is None else [alone]:
            if item not in self._in_check:
                self._in_check[item] = None
                self._watch.asked(item)
                # At most `concurrency` lines are under way, so the pipe's buffer cannot grow without bound.
                self._child.stdin.write(self._requests[item])
        self._watch_changed.set()

    def _forget(self, item: int) -> None:
        self._requests.pop(item, None)
        self._in_check.pop(item, None)
        self._watch.ended(item)
        self._suspects.ended(item)

    async def _run_until_failed(self) -> None:
        """Keep the program running: start it again when it dies, until it is given up."""
        while self._failure is None:
            self._ended = await self._run_once()
            self._has_ended.set()
            if not self._restarts:
                return
            if self._hung:
                self._hung = False
                continue

            if self._is_given_up(self._ended):
                return

            wait = self._backoff.next()
            log.warning("the program has ended (%s); starting it again in %.1f s", self._ended, wait)
            await asyncio.sleep(wait)

    def _is_given_up(self, ended: str) -> bool:
        """Note a death: the item that is known as its cause fails.  Tells whether the program is given up over it."""
        item = self._suspects.died(item for item in self._in_check if not self._answers[item].done())
        if item is not None:
            self._resolve(item, ProgramDied(f"the program dies over this item ({ended})"))
            self._forget(item)

        verdict = self._suspects.verdict()
        if verdict is not None:
            self._fail(f"The program {self._command[0]!r} {verdict} ({ended}).")
        return self._failure is not None

    async def _run_once(self) -> str:
        """Start the program, hand it the open items, and read its answers until it ends; returns how it ended."""
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_MAX_LINE_BYTES,
                start_new_session=True,  # a Ctrl-C is for the daemon, which lets the program finish
                creationflags=_NEW_GROUP,  # the same on Windows
            )
        except (OSError, ValueError) as failure:
            self._fail(why_not_started(self._command[0], failure))
            return ""

        self._child = child
        self._in_check.clear()
        self._watch.started()
        assert child.stdout is not None
        assert child.stderr is not None
        complaints = asyncio.create_task(self._pass_on(child.stderr), name="program's standard error")

        try:
            self._hand_over()
            while line := await child.stdout.readline():
                self._read(line)
        except ValueError as failure:
            log.warning("the program writes lines without end: %s", failure)
        finally:
            self._child = None
            await to_its_end(stop(child, complaints, at_once=self._hung))
            self._said.flush()
            self._garbage.flush()
        return how_it_ended(child.returncode)

    async def _pass_on(self, complaints: asyncio.StreamReader) -> None:
        """Pass what the program writes to standard error on to the log."""
        begun = b""
        while chunk := await complaints.read(_CHUNK_BYTES):
            *lines, begun = (begun + chunk).split(b"\n")
            begun = begun[-_CHUNK_BYTES:]
            for line in filter(None, map(bytes.strip, lines)):
                self._said.line(line.decode("utf-8", "replace"))
        if begun.strip():
            self._said.line(begun.strip().decode("utf-8", "replace"))

    async def _keep_watch(self) -> None:
        """Say when the program is silent, and end it when it hangs; runs until cancelled."""
        while True:
            wait = self._watch.next_look() if self._child is not None else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._watch_changed.wait()
            self._watch_changed.clear()

            if quiet := self._watch.quiet_items():
                log.warning(
                    "the program has had %s for %.0f s and has written no result: %s",
                    counted(quiet, "item"), QUIET_AFTER, self._why_silent(),
                )  # fmt: skip
            if self._child is not None and (item := self._watch.overdue()) is not None:
                self._end_hang(item)

    def _end_hang(self, item: int) -> None:
        """End the program over an item that it gives no result for; the others go on with a new one."""
        seconds = self._watch.item_timeout
        self._forget(item)
        self._resolve(item, NoResultInTime(f"the program gave no result within {seconds:g} s; it is started again"))

        self._hangs += 1
        if self._hangs >= _MAX_HANGS:
            self._fail(
                f"The program {self._command[0]!r} gave no result for {_MAX_HANGS} items in a row, "
                f"{seconds:g} s each: {self._why_silent()}"
            )
        self._hung = True
        if self._child is not None:
            kill(self._child)

    def _read(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            result = _answer_decoder.decode(line)
        except msgspec.MsgspecError:
            self._note_garbage("no JSON object", line)
            return

        item = result.pop("item", None)
        if not isinstance(item, int):
            self._note_garbage('no field "item"' if item is None else 'the field "item" is no integer', line)
            return
        if item not in self._answers:
            self._note_garbage(f"item {item} is none that it has now", line)
            return

        self._hangs = 0
        self._wrote_garbage = False
        self._suspects.heard()
        self._watch.heard()
        self._backoff.reset()

        if "$skip" in result:
            self._resolve(item, CheckFailed(str(result["$skip"])))
        elif "$upstream_limited" in result:
            seconds = result["$upstream_limited"]
            valid = isinstance(seconds, int | float) and seconds >= 0
            self._resolve(item, UpstreamLimited(float(seconds) if valid else _DEFAULT_UPSTREAM_WAIT))
        elif "$upstream_out" in result:
            self._resolve(item, UpstreamOut(str(result["$upstream_out"])))
        else:
            self._resolve(item, result)

    def _note_garbage(self, what: str, line: bytes) -> None:
        self._wrote_garbage = True
        shown = line[: 4 * _SHOWN_OF_LINE].decode("utf-8", "replace").strip()[:_SHOWN_OF_LINE]
        self._garbage.line(f"{what}: {shown!r}; {_EXPECTED_LINE}")

    def _why_silent(self) -> str:
        """Say what may be wrong with a program that gives no result."""
        if self._wrote_garbage:
            return f"it wrote lines that are no results; {_EXPECTED_LINE}"
        return "does it flush each line?"

    def _resolve(self, item: int, outcome: dict[str, Any] | Exception) -> None:
        answer = self._answers[item]
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _fail(self, why: str) -> None:
        self._failure = ProgramFailed(why)
        for item in list(self._answers):
            self._resolve(item, self._failure)


def _split(command: str) -> list[str]:
    """Split a command into words; on Windows a backslash is a part of a path."""
    if os.name != "nt":
        return shlex.split(command)
    return [word.strip('"') for word in shlex.split(command, posix=False)]
