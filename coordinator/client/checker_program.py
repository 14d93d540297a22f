"""A checker in any language: a program that reads items and writes results, one JSON object a line.

To its standard input go `{"item": 7, "key": "ada", …attributes…, "service": "dm_check", "profile": {…}}`;
from its standard output come, in any order, `{"item": 7, …result…}`, or one of

    {"item": 7, "$skip": "why"}               this item cannot be checked
    {"item": 7, "$upstream_limited": 900}     the outside API takes nothing for so many seconds

It lives as long as the daemon, and is started again when it dies; its standard error is the daemon's.  At the
end its input is closed.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import shutil
from collections import Counter
from types import TracebackType
from typing import Any, Self

import msgspec

from coordinator.client.backoff import Backoff
from coordinator.client.checkers import Checker, CheckFailed, UpstreamLimited
from coordinator.errors import ConfigError

log = logging.getLogger("coordinator.client")

_MAX_CRASHES = 3
"""Crashes in a row without a result after which the program is given up; also crashes per item, for that item."""

_MAX_LINE_BYTES = 64 << 20
_EXIT_GRACE = 2.0
"""Seconds that a program has to end before it is killed."""

_DEFAULT_UPSTREAM_WAIT = 60.0
"""Seconds to wait if `$upstream_limited` is not a number."""

_encode = msgspec.json.Encoder().encode
_answer_decoder = msgspec.json.Decoder(dict[str, Any])


class ProgramFailed(ConfigError):
    """Raised when the program dies again and again, or cannot be started."""


class CheckerProgram:
    """A long-lived program, inside `async with`.  `checker(service)` gives its checker for one service."""

    def __init__(self, command: str, backoff: Backoff | None = None) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as failure:
            raise ConfigError(f"The command {command!r} cannot be read: {failure}.") from None

        if not self._command:
            raise ConfigError("The command is empty.")
        if shutil.which(self._command[0]) is None:
            raise ConfigError(f"There is no program {self._command[0]!r} that can be run.")

        self._backoff = backoff if backoff is not None else Backoff(0.5, 10.0)
        self._requests: dict[int, bytes] = {}
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._crashes = 0
        self._crashes_of_item: Counter[int] = Counter()
        self._child: asyncio.subprocess.Process | None = None
        self._failure: ProgramFailed | None = None
        self._item_free = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._runner = self._tasks.create_task(self._run_until_failed(), name="program")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.cancel()
        # Only a cancellation is the group's business; other errors of the caller stay as they are.
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._tasks.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))

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
            self._write(self._requests[item])
            result: dict[str, Any] = await answer
            return result
        finally:
            del self._answers[item], self._requests[item]
            self._crashes_of_item.pop(item, None)
            async with self._item_free:
                self._item_free.notify_all()

    def _write(self, line: bytes) -> None:
        # At most `concurrency` lines are under way, so the pipe's buffer cannot grow without bound.
        if self._child is not None and self._child.stdin is not None and not self._child.stdin.is_closing():
            self._child.stdin.write(line)

    async def _run_until_failed(self) -> None:
        """Keep the program running: start it again when it dies, until it is given up."""
        while self._failure is None:
            await self._run_once()

            self._crashes += 1
            for item in list(self._answers):
                self._crashes_of_item[item] += 1
                if self._crashes_of_item[item] >= _MAX_CRASHES:
                    self._resolve(item, CheckFailed(f"The program died {_MAX_CRASHES} times over item {item}."))
            if self._crashes >= _MAX_CRASHES:
                self._fail(f"The program {self._command[0]!r} died {_MAX_CRASHES} times without a result.")
                return

            wait = self._backoff.next()
            log.warning("the program has ended; starting it again in %.1f s", wait)
            await asyncio.sleep(wait)

    async def _run_once(self) -> None:
        """Start the program, send it all open requests, and read its answers until it ends."""
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_MAX_LINE_BYTES,
                start_new_session=True,  # a Ctrl-C is for the daemon, which lets the program finish
            )
        except (OSError, ValueError) as failure:
            self._fail(f"The program {self._command[0]!r} cannot be started: {failure}.")
            return

        self._child = child
        assert child.stdout is not None
        try:
            for line in list(self._requests.values()):
                self._write(line)
            while line := await child.stdout.readline():
                self._read(line)
        except ValueError as failure:
            log.warning("the program writes lines without end: %s", failure)
        finally:
            self._child = None
            await _stop(child)

    def _read(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            result = _answer_decoder.decode(line)
        except msgspec.MsgspecError as failure:
            log.warning("the program wrote what is no JSON object: %s", failure)
            return

        item = result.pop("item", None)
        if not isinstance(item, int) or item not in self._answers:
            log.warning("the program wrote a result of item %r, which it was not asked for", item)
            return

        self._crashes = 0
        self._backoff.reset()

        if "$skip" in result:
            self._resolve(item, CheckFailed(str(result["$skip"])))
        elif "$upstream_limited" in result:
            seconds = result["$upstream_limited"]
            valid = isinstance(seconds, int | float) and seconds >= 0
            self._resolve(item, UpstreamLimited(float(seconds) if valid else _DEFAULT_UPSTREAM_WAIT))
        else:
            self._resolve(item, result)

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


async def _stop(child: asyncio.subprocess.Process) -> None:
    """Close the program's input, and kill it if it does not end in time."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(_EXIT_GRACE):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
