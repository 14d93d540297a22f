"""The process in which hooks of a plugin from outside run: one call after the other, in bounded time and memory.

Calls come on standard input, and answers go to standard output: pickles, each behind its length in four bytes.  The
other end is the node that started it, which has loaded the same plugin, so neither has anything to fear of the other's
pickles.  It ends with its input.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from coordinator.errors import PeerError
from coordinator.services.contract import Plugin
from coordinator.services.discovery import look_again
from coordinator.services.hooks import Answered, Call, Declined, Failed
from coordinator.services.reader import Reader
from coordinator.services.settings import configured

MEMORY = 1024 * 1024 * 1024
"""Bytes of data that the process may have; beyond it, what wants more gets a MemoryError."""

GRACE = 1.0
"""Seconds past the deadline of a call after which the process ends by itself, should the node not have ended it."""

HEAD = 4
"""Bytes of the length in front of each pickle."""


def packed(message: object) -> bytes:
    """Return a message as it is sent."""
    body = pickle.dumps(message, protocol=5)
    return len(body).to_bytes(HEAD, "big") + body


class Instances:
    """The plugin of each service with its reader, made again when the settings change."""

    def __init__(self, plugins: Mapping[str, type[Plugin]]) -> None:
        self._plugins = plugins
        self._made: dict[str, tuple[object, Plugin, Reader]] = {}

    def of(self, call: Call) -> tuple[Plugin, Reader]:
        """Return those that a call is for."""
        wanted = (call.plugin, call.settings)
        made = self._made.get(call.service)
        if made is None or made[0] != wanted:
            plugin = configured(self._plugins[call.plugin], call.service, call.settings)
            plugin.key_form = call.key_form
            made = self._made[call.service] = (wanted, plugin, plugin.reader())
        return made[1], made[2]


def answer(call: Call, instances: Instances) -> Answered | Declined | Failed:
    """Make one call."""
    signal.setitimer(signal.ITIMER_REAL, call.deadline + GRACE)  # unhandled, so it ends the process wherever that is
    try:
        return Answered(call.hook(*instances.of(call), *call.arguments))
    except PeerError as refusal:
        return Declined(type(refusal), refusal.message, refusal.detail)
    except BaseException as failure:
        # The call of a plugin: whatever it raises, SystemExit too, is the answer.
        return Failed(repr(failure), traceback.format_exc(), isinstance(failure, MemoryError))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def bound_memory() -> None:
    """Let this process have little, and be the first to go where the machine has none left."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> None:
    """Answer calls until there are no more."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin prints is no answer
    sys.path[:] = _next(calls)
    bound_memory()
    plugins, _ = look_again()  # those that cannot be loaded are none of its business
    instances = Instances(plugins)
    _send(answers, packed(Answered(None)))

    while (call := _next(calls)) is not None:
        try:
            frame = packed(answer(call, instances))
        except Exception as failure:
            # What a plugin returns may be of a class that nobody else can import.
            frame = packed(Failed(repr(failure), traceback.format_exc(), isinstance(failure, MemoryError)))
        _send(answers, frame)


def _next(calls: BinaryIO) -> Any:
    head = calls.read(HEAD)
    return pickle.loads(calls.read(int.from_bytes(head, "big"))) if head else None  # noqa: S301 - as above


def _send(answers: BinaryIO, frame: bytes) -> None:
    answers.write(frame)
    answers.flush()


if __name__ == "__main__":
    main()
