"""A part of a node that fails is started again, and nobody who works notices."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coordinator.flow.activity import ActivityLog
from coordinator.flow.arrivals import Arrivals
from coordinator.flow.catalogue_fill import CatalogueFill
from coordinator.flow.commits import Commits
from coordinator.flow.database_watch import DatabaseWatch
from coordinator.flow.expiry import Expiry
from coordinator.flow.grant import Grant
from coordinator.flow.lease import Lease
from coordinator.flow.pruner import Pruner
from coordinator.flow.release import Releases
from coordinator.flow.requeue import Requeue
from coordinator.flow.signals import Signals
from coordinator.flow.wait_view import WaitView
from coordinator.observe.node_load import NodeLoadMeter
from coordinator.serve.change_listener import ChangeListener
from coordinator.serve.feeds import Feeds
from coordinator.serve.listener import Listener
from coordinator.stats.recorder import Recorder
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Server
from tests.serve.tools import eventually

PARTS: dict[str, type[Any]] = {
    "grant": Grant,
    "arrivals": Arrivals,
    "commits": Commits,
    "signals": Signals,
    "expiry": Expiry,
    "releases": Releases,
    "catalogue fill": CatalogueFill,
    "requeue": Requeue,
    "activity": ActivityLog,
    "pruner": Pruner,
    "database watch": DatabaseWatch,
    "load": NodeLoadMeter,
    "feeds": Feeds,
    "recorder": Recorder,
    "change listener": ChangeListener,
    "wait view": WaitView,
}
VITAL: dict[str, type[Any]] = {"lease": Lease, "listener": Listener}


class Tripwire:
    """Lets the first run of a part fail when it is told to; the runs behind it are left alone."""

    def __init__(self) -> None:
        self._tripped = asyncio.Event()
        self.runs = 0

    def trip(self) -> None:
        self._tripped.set()

    def around(self, run: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def fails_once(part: Any) -> None:
            self.runs += 1
            if self.runs > 1:
                await run(part)
                return

            task = asyncio.ensure_future(run(part))
            try:
                await self._tripped.wait()
            finally:
                task.cancel()
                await asyncio.wait([task])
            raise RuntimeError("a fault")

        return fails_once


async def start_tripped(start_server: StartServer, part: type[Any], monkeypatch: pytest.MonkeyPatch) -> Server:
    """A node one of whose parts has just failed."""
    tripwire = Tripwire()
    monkeypatch.setattr(part, "run", tripwire.around(part.run))
    server = await start_server()
    tripwire.trip()

    async def failed() -> bool:
        return server.node.events.counts["fault"] == 1

    await eventually(failed, "the part fails")
    return server


def readiness(server: Server) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.node.port}/readyz") as answer:
        return dict(json.load(answer))


async def test_every_part_of_a_node_is_looked_after(server: Server) -> None:
    assert {name for name, _ in server.node.parts.runs()} == PARTS.keys()
    assert {name for name, _ in server.node.parts.vital_runs()} == VITAL.keys()


@pytest.mark.parametrize("name", PARTS)
async def test_work_goes_on_when_a_part_fails(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server = await start_tripped(start_server, PARTS[name], monkeypatch)
    admin, volunteer = await server.admin(), await server.volunteer("volunteer")
    for number in range(3):
        await admin.add(2, prefix=f"round{number}_")
        stored = await volunteer.submit(await volunteer.bucket())
        assert (stored["type"], stored["closed"]) == ("stored", True), stored

    told = await asyncio.to_thread(readiness, server)
    reason = f"The part {name} has failed and was started again."
    assert told == {"ready": True, "reasons": [reason], "key_form": "handle"}
    assert not server.node.failed


@pytest.mark.parametrize("name", VITAL)
async def test_a_node_ends_without_its_lease_or_its_listener(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server = await start_tripped(start_server, VITAL[name], monkeypatch)
    await within(server.node.wait_until_stopped(), 10)
    assert server.node.failed
