"""The processes in which hooks of plugins from outside run, so that one that hangs or eats memory harms nobody else.

A thread cannot be ended, and one that computes has the interpreter of the whole node to itself now and then; a regular
expression that takes minutes does not even give it back.  A process that is too late is killed, and replaced when it
is needed.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict

from coordinator.services import plugin_program
from coordinator.services.hooks import Answered, Call, Declined, Failed
from coordinator.services.plugin_program import HEAD, packed

PROCESSES = 4
"""Processes of one plugin at once; each has some 40 MiB."""

START_WITHIN = 30.0
"""Seconds that a process has for its start."""

WAIT = 5.0
"""Seconds that a call waits for a free process."""

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer."""


class PluginFault(Exception):
    """A plugin failed; `details` is its traceback."""

    def __init__(self, message: str, details: str | None = None) -> None:
        super().__init__(message)
        self.details = details


class PluginBusy(PluginFault):
    """All processes of a plugin are busy; nothing was called."""


class PluginProcesses:
    """Makes calls in processes, a few of each plugin, which are started when there is none that is free."""

    def __init__(self) -> None:
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PROCESSES))
        self._free: defaultdict[str, list[_PluginProcess]] = defaultdict(list)

    async def call(self, call: Call) -> object:
        """Return what a call returns.

        Raises:
            PeerError: the plugin refuses what it was given.
            PluginFault: it failed, or was too late, or (PluginBusy) others were.
        """
        places = self._places[call.plugin]
        try:
            async with asyncio.timeout(WAIT):
                await places.acquire()
        except TimeoutError:
            raise PluginBusy("all of its processes are busy") from None

        try:
            answer = await self._ask(call)
        finally:
            places.release()
        if isinstance(answer, Declined):
            raise answer.kind(answer.message, detail=answer.detail)
        if isinstance(answer, Failed):
            raise PluginFault(answer.error, answer.traceback)
        return answer.value

    async def close(self) -> None:
        """End the processes that are free; the others end with their calls."""
        for free in self._free.values():
            for process in free:
                await process.kill()
            free.clear()

    async def _ask(self, call: Call) -> Answered | Declined | Failed:
        free = self._free[call.plugin]
        while free and free[-1].ended:
            await free.pop().kill()
        process = free.pop() if free else await _PluginProcess.start()

        try:
            answer = await process.ask(call)
        except BaseException:  # also where nobody waits for the answer any more: it would be that of the next call
            await process.kill()
            raise
        if isinstance(answer, Failed) and answer.out_of_memory:
            await process.kill()
        else:
            free.append(process)
        return answer


class _PluginProcess:
    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._calls, self._answers = process.stdin, process.stdout

    @classmethod
    async def start(cls) -> _PluginProcess:
        """Start one, with the plugins that this process finds.

        Raises:
            PluginFault: it does not start.
        """
        # -P: no module of the folder that the node happens to be in.  A session of its own: Ctrl-C is for the node.
        command = [sys.executable, "-P", "-m", plugin_program.__name__]
        process = cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True))
        try:
            async with asyncio.timeout(START_WITHIN):
                await process._exchange(sys.path)
        except TimeoutError:
            await process.kill()
            raise PluginFault("its process does not start in time") from None
        except BaseException:
            await process.kill()
            raise
        return process

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    async def ask(self, call: Call) -> Answered | Declined | Failed:
        """Make one call.

        Raises:
            PluginFault: no answer comes in time, or none that can be read.
        """
        try:
            async with asyncio.timeout(call.deadline):
                return await self._exchange(call)
        except TimeoutError:
            raise PluginFault("it took too long") from None

    async def kill(self) -> None:
        """End it at once."""
        if not self.ended:
            self._process.kill()
        self._calls.close()
        await self._process.wait()

    async def _exchange(self, message: object) -> Answered | Declined | Failed:
        try:
            self._calls.write(packed(message))
            await self._calls.drain()
            size = int.from_bytes(await self._answers.readexactly(HEAD), "big")
            if size > MAX_ANSWER:
                raise PluginFault(f"it answered with {size} bytes, {MAX_ANSWER} at most are taken")
            answer = pickle.loads(await self._answers.readexactly(size))  # noqa: S301 - as above
        except (asyncio.IncompleteReadError, ConnectionError):
            raise PluginFault(_end_of(await self._process.wait())) from None
        assert isinstance(answer, Answered | Declined | Failed)
        return answer


def _end_of(code: int) -> str:
    """Tell how a process has ended, by its exit code."""
    if code == -signal.SIGALRM:
        return "it took too long"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"
