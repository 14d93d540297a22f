"""Nodes of two versions beside each other: one schema step forward, and back again, under load."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.app import Node
from coordinator.client import Backoff, Client
from coordinator.client.daemon import Daemon
from coordinator.client.service_work import ServiceWork
from coordinator.config import Settings
from coordinator.prepare import prepare_database
from coordinator.store import migrate
from coordinator.store.pool import Database
from tests.chaos.proxy import Proxy
from tests.harness import Server
from tests.serve.tools import configure, eventually, results, value

CLIENTS, ITEMS = 8, 6000

STEP = migrate.Migration(
    len(migrate.shipped()) + 1,
    "next",
    "-- additive\n"
    + "".join(
        f"ALTER TABLE {table} ADD COLUMN next_{table} text;\n"
        for table in ("service", "item", "enrolment", "waiting", "bucket", "claim", "result", "client", "membership")
    )
    + "CREATE TABLE next_table (item_id bigint PRIMARY KEY);",
)
"""A step of the next version: whatever it may add to the tables of the hot path."""


@contextmanager
def next_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program that knows that step, too."""
    shipped = migrate.shipped()
    with monkeypatch.context() as newer:
        newer.setattr(migrate, "shipped", lambda: [*shipped, STEP])
        yield


class Fleet:
    """Daemons that work one after another at whatever node there is."""

    def __init__(self, url: str, folder: Path) -> None:
        self._daemons = []
        for n in range(CLIENTS):
            client = Client(url, client_id=f"c{n}", data=folder / f"c{n}", flush_every=0.05, backoff=Backoff(0.05, 0.3))
            self._daemons.append(Daemon(client, [ServiceWork("dm_check", self._check, {"source": "c"})], concurrency=2))
        self._tasks = [asyncio.create_task(daemon.run()) for daemon in self._daemons]

    async def _check(self, item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"dm": "DM"}

    async def end(self) -> None:
        for daemon in self._daemons:
            daemon.stop()
        await asyncio.wait(self._tasks)


@pytest.mark.long
async def test_one_step_forward_and_back(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost 0; nobody is refused or charged for it."""
    await configure(database, bucket_size=8)
    serving: list[Node] = []
    turns = itertools.count()
    async with AsyncExitStack() as stack:
        # Leads new sessions to the nodes that do not drain, in turn.
        balancer = await stack.enter_async_context(Proxy(lambda: serving[next(turns) % len(serving)].port))

        async def start(name: str) -> Node:
            await prepare_database(dsn, None)
            settings = Settings(port=0, ops_port=0, data=tmp_path, node_name=name, drain_grace=1)
            serving.append(await stack.enter_async_context(Node(settings, dsn=dsn)))
            return serving[-1]

        async def more(done: int) -> None:
            async def enough() -> bool:
                return await results(database) >= done

            await eventually(enough, f"not {done} results", 60)

        async def leave(node: Node) -> None:
            serving.remove(node)
            await node.drain()
            await node.__aexit__(None, None, None)

        old = await start("old")
        admin = await Server(old, database, stack).admin()
        await admin.add(ITEMS)
        fleet = Fleet(f"ws://127.0.0.1:{balancer.port}", tmp_path)
        stack.push_async_callback(fleet.end)
        await more(60)

        with next_version(monkeypatch):
            await migrate.migrate(database)
            new = await start("new")
            await more(await results(database) + 60)  # both at once, on the newer schema
            await leave(old)
            await more(await results(database) + 60)

        again = await start("again")  # it does not know the step, and serves
        await leave(new)
        await more(ITEMS)

        assert await value(database, "SELECT count(DISTINCT item_id) FROM result") == ITEMS
        assert await results(database) == ITEMS
        charged = (
            "SELECT count(*) FROM membership WHERE health <> 'ok' OR dead > 0 OR bad_submits > 0 OR given_back > 0"
        )
        assert await value(database, charged) == 0
        assert not any(node.events.counts["fault"] for node in (old, new, again))
