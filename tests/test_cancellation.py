"""Cancellation is never turned into another error: each part of a node ends wherever it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

import pytest

from coordinator.flow.claimer import ImmediateTicket, answers_of
from coordinator.flow.session_registry import Holder
from coordinator.model import Claimed
from coordinator.store.pool import Database
from tests.bounded import within
from tests.cancelling import cancel_everywhere, watching_tasks
from tests.conftest import StartServer
from tests.harness import Server

Start: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

SHORT = 0.01
"""Seconds that a pause of the program takes here at most."""

LITTLE = 1.0
"""Seconds that a client waits here before it does something else."""


async def work(server: Server, name: str, begun: asyncio.Event) -> None:
    """Let a client do all that clients do, over and over, whatever comes of it."""
    admin = await server.admin()
    while True:
        with contextlib.suppress(OSError, TimeoutError, AssertionError):
            async with asyncio.timeout(10 * LITTLE):
                peer = await server.volunteer(name)
                for give_back in (False, True):
                    await admin.add(2, prefix=f"{name}{asyncio.get_running_loop().time()}")
                    peer.send("ask", service="dm_check", count=2)
                    bucket = await peer.push("bucket", LITTLE)
                    if give_back:
                        peer.send("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
                    else:
                        peer.send("ask", service="dm_check", count=1, wait=False)
                        await within(peer.submit(bucket), LITTLE)
                    begun.set()
                peer.cut()
        await asyncio.sleep(0)


@asynccontextmanager
async def at_work(server: Server) -> AsyncIterator[None]:
    """Clients that go on while parts of the node come and go."""
    begun = asyncio.Event()
    tasks = [asyncio.create_task(work(server, name, begun)) for name in ("ada", "ben")]
    await begun.wait()
    yield
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def cut_connections(database: Database) -> None:
    """Cut the connections to the database, as a network does."""
    for holder in database._pool._holders:
        if holder._con is not None and not holder._con.is_closed():
            holder._con._transport.abort()


def starts(server: Server) -> Mapping[str, Start]:
    """Each part of a node, as the node starts it."""
    parts = server.node.parts
    looked_after = {name: partial(parts.supervisor.keep_running, name, run) for name, run in parts.runs()}
    vital = {name: partial(parts.supervisor.run_vital, name, run) for name, run in parts.vital_runs()}
    return looked_after | vital


@pytest.mark.parametrize("cut", [False, True], ids=["alone", "with its connections"])
async def test_each_part_ends_wherever_it_is_cancelled(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    sleep = asyncio.sleep
    server = await start_server(node_lease=600.0)
    database = server.node.parts.core.database
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *result: sleep(min(seconds, SHORT), *result))

    found = 0

    with watching_tasks():
        async with at_work(server):
            for name, start in starts(server).items():
                own = next(task for task in server.node.tasks if task.get_name() == name)
                own.cancel()
                await asyncio.wait([own])
                places, wrong = await cancel_everywhere(start, partial(cut_connections, database) if cut else int)
                assert not wrong, f"{name}: {wrong}"
                found += len(places)
                server.node.tasks.append(asyncio.create_task(start()))
    assert found > 40  # else it looks nowhere


async def test_an_ask_that_is_cancelled_leaves_no_answer_behind() -> None:
    """The event loop logged the failure of one that nobody had waited for."""
    answer: asyncio.Future[Claimed | None] = asyncio.get_running_loop().create_future()
    holder = cast(Holder, SimpleNamespace(client_id="ada"))
    asking = asyncio.create_task(answers_of([ImmediateTicket(holder, 0.0, immediate=True, answer=answer)]))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert answer.cancelled()
