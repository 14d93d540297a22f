"""Volunteers' daemons against a real node and the stand-in for the outside API, with something wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from coordinator.client import Backoff, Client, x_api
from coordinator.client.checkers import Checker, close_checker
from coordinator.client.daemon import Daemon
from coordinator.client.service_work import ServiceWork
from coordinator.client.upstream_pause import UpstreamPause
from coordinator.standin import StandIn
from tests.harness import Admin, Server

PATIENCE = 30.0


@contextmanager
def logged(text: str) -> Iterator[asyncio.Event]:
    """An event that is set once a line of the daemon's log has this text in it."""
    event = asyncio.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                event.set()

    listener = Listener()
    logging.getLogger("coordinator.client").addHandler(listener)
    try:
        yield event
    finally:
        logging.getLogger("coordinator.client").removeHandler(listener)


def quick(work: ServiceWork) -> ServiceWork:
    """Make the pauses of an outage short enough for a test."""
    work.pause = UpstreamPause(work.service, Backoff(0.05, 0.3))
    return work


@asynccontextmanager
async def at_work(
    server: Server, data: Path, check: Checker, *, service: str = "dm_check", name: str = "ada", concurrency: int = 4
) -> AsyncIterator[asyncio.Task[None]]:
    """A daemon that works, until the end or until it ends itself."""
    client = Client(server.url, client_id=name, data=data, flush_every=0.05)
    work = quick(ServiceWork(service, check, {"source": name}))
    daemon = Daemon(client, [work], concurrency=concurrency, stop_grace=0.1)
    task = asyncio.create_task(daemon.run())
    try:
        yield task
    finally:
        daemon.stop()
        await asyncio.wait([task])
        await close_checker(check)


def dm(standin: StandIn, token: str = "t") -> Checker:
    """The checker of direct messages, against the stand-in."""
    return x_api.dm_check(standin.url, token, requests_per_window=0)


async def settled(server: Server, count: int, service: str = "dm_check") -> None:
    """Wait until so many items have a result."""
    viewer = await server.viewer()
    await viewer.ok("subscribe", topics=["services"], interval=0.25)
    async with asyncio.timeout(PATIENCE):
        while True:
            data: dict[str, Any] = (await viewer.snapshot("services"))["data"]
            (row,) = [row for row in data["rows"] if row["service"] == service]
            if row["items"]["settled"] >= count:
                return


async def client_row(admin: Admin, name: str = "ada", service: str = "dm_check") -> dict[str, Any]:
    """The server's figures of a client's work in a service."""
    shown = await admin.ok("client.show", client_id=name)
    row: dict[str, Any]
    (row,) = [row for row in shown["services"] if row["service"] == service]
    return row
