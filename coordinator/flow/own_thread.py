"""Threads for calls of code from outside the package, for which a node that ends does not wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def begin_in_thread(name: str, call: Callable[[], T]) -> asyncio.Future[T]:
    """Run a call in a thread of its own; returns the future of its answer.

    Await it by `asyncio.shield`: then it ends with the call, though nobody may wait any more.  What the call raises
    that is no Exception, such as SystemExit, becomes a RuntimeError.
    """
    # Not asyncio.to_thread: its threads are shared, and a process waits for them before it ends.
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may ask for it

    def run() -> None:
        try:
            result = call()
        except BaseException as raised:
            plain = isinstance(raised, Exception) and not isinstance(raised, StopIteration)
            tell = partial(answer.set_exception, raised if plain else RuntimeError(repr(raised)))
        else:
            tell = partial(answer.set_result, result)
        with suppress(RuntimeError):  # the node has ended meanwhile
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer
