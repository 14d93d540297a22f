"""A step that fails stops none of the others, is told, and is left out for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from coordinator.errors import Unavailable
from coordinator.flow import round_steps as module
from coordinator.flow.round_steps import RoundSteps
from coordinator.store import changes, history, pruning, rechecks, statistics
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.serve.tools import configure, eventually, execute, value


def refused(*_: Any, **__: Any) -> Any:
    """A statement that an extension of Postgres does not carry out."""
    raise asyncpg.FeatureNotSupportedError("complex joins are only supported when all distributed tables are joined")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_step_that_fails_stops_no_other(clock: Clock) -> None:
    ran: list[str] = []

    def step(name: str, failure: Exception | None = None) -> tuple[str, Callable[[], Awaitable[None]]]:
        async def run() -> None:
            ran.append(name)
            if failure is not None:
                raise failure

        return name, run

    steps = RoundSteps()
    with pytest.raises(ZeroDivisionError) as told:
        await steps.run([step("a", Unavailable("away")), step("b", ZeroDivisionError("wrong")), step("c")])
    assert told.value.__notes__ == ["in the step: b"]
    assert ran == ["a", "b", "c"]

    with pytest.raises(Unavailable):  # what the database was away for is tried again at once
        await steps.run([step("a", Unavailable("away")), step("b"), step("c")])
    assert ran[3:] == ["a", "c"]

    clock.now += module.FIRST_OMISSION
    with pytest.raises(ExceptionGroup) as several:
        await steps.run([step("b", KeyError()), step("c", ValueError())])
    assert [type(fault) for fault in several.value.exceptions] == [KeyError, ValueError]
    clock.now += module.FIRST_OMISSION
    await steps.run([step("b", KeyError()), step("c")])  # `b` has failed twice
    assert ran[5:] == ["b", "c", "c"]

    for _ in range(20):
        clock.now += module.LONGEST_OMISSION
        with pytest.raises(KeyError):
            await steps.run([step("b", KeyError())])
    clock.now += module.LONGEST_OMISSION
    await steps.run([step("b")])
    await steps.run([step("b")])


async def test_a_cancelled_step_is_no_fault() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await RoundSteps().run([("a", cancelled)])


async def test_a_statement_that_is_refused_stops_no_other_part(
    start_server: StartServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an extension such as Citus may do: old results are not checked anew, and buckets are built all the same."""
    monkeypatch.setattr(rechecks, "recheck", refused)
    monkeypatch.setattr(statistics, "fold", refused)
    monkeypatch.setattr(history, "add", refused)
    monkeypatch.setattr(pruning, "forget_sessions", refused)
    monkeypatch.setattr(changes, "order", refused)
    await configure(database, recheck_after=3600, bucket_size=2)
    server = await start_server()
    parts = server.node.parts
    await execute(database, "INSERT INTO notice (level, text, until) VALUES ('info', 'over', now())")

    peer, admin = await server.volunteer("ada"), await server.admin()
    await admin.add(4, services=["dm_check"])

    async def built() -> bool:
        return bool(await value(database, "SELECT count(*) = 2 FROM bucket WHERE state = 'ready'"))

    await eventually(built, "no buckets are built")

    assert (await peer.submit(await peer.bucket()))["closed"]
    parts.core.events.emit("node", "something is told")
    parts.statistics.recorder._steps = RoundSteps()  # it has met the refusal, too, and would leave the step out
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await parts.statistics.recorder.write()
    assert await value(database, "SELECT count(*) FROM event WHERE text = 'something is told'") == 1

    parts.work.pruner._steps = RoundSteps()
    with pytest.raises(ExceptionGroup) as told:
        await parts.work.pruner.prune()
    assert [fault.__notes__ for fault in told.value.exceptions] == [
        ["in the step: sessions"],
        ["in the step: new changes"],
    ]
    assert await value(database, "SELECT count(*) FROM notice") == 0
