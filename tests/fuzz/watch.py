"""Holds a node to its promise under fuzz: no fault, no error in its log, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bounded import within
from tests.fuzz.frames import SETTINGS
from tests.harness import Server
from tests.serve.tools import eventually, value

PATIENCE = 60.0
"""Seconds after which an example hangs: a machine that is busy with other tests takes some for one."""


AT_RANDOM_MEANWHILE = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module inside strategies:hypothesis.errors.HypothesisDeprecationWarning"
)
"""For tests with `each`: while a thread draws an example, the loop runs on, and what runs there may use `random`."""


async def each(strategy: st.SearchStrategy[Any], run: Callable[[Any], Awaitable[None]]) -> None:
    """Run a coroutine with each example, on the loop that the test runs on."""
    loop = asyncio.get_running_loop()

    @SETTINGS
    @given(strategy)
    def examples(example: Any) -> None:
        asyncio.run_coroutine_threadsafe(within(run(example), PATIENCE), loop).result()

    await asyncio.to_thread(examples)


@asynccontextmanager
async def nothing_goes_wrong(server: Server, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[None]:
    """Check at the end that nothing went wrong on a node, and that it is as it was at the beginning."""
    services = len(server.node.parts.core.catalogue.all())
    tasks = len(asyncio.all_tasks()) + 2 * services  # two of each service begin with its first ask
    sessions = server.node.parts.sockets.listener._sessions
    open_before = len(sessions.clients), len(sessions.viewers), len(sessions.admins)
    yield

    async def all_gone() -> bool:
        held = await value(server.database, "SELECT count(*) FROM bucket WHERE client_id LIKE 'fuzz%'")
        open_now = len(sessions.clients), len(sessions.viewers), len(sessions.admins)
        return held == 0 and open_now == open_before and len(asyncio.all_tasks()) <= tasks

    await eventually(all_gone, "sessions, buckets or tasks are left")
    handshakes = server.node.parts.sockets.listener._handshakes
    assert handshakes._total == 0
    assert not server.node.events.counts["fault"]
    output = capfd.readouterr()
    for word in ("Traceback", "[error", "[critical", "was never retrieved"):
        assert word not in output.err + output.out, (output.err + output.out)[-4000:]
