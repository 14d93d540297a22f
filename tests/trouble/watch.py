"""Lets clients work on a node while there is trouble, and tells what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.store.pool import Database
from tests.bounded import within
from tests.chaos.proxy import Proxy
from tests.harness import Server, Volunteer
from tests.serve.tools import configure, eventually
from tests.trouble.kinds import Kind, Place
from tests.trouble.server import TroubledPostgres

CLIENTS = 3

PAUSE = 0.05
"""Seconds between two buckets of a client: the items last for all kinds of trouble, however quick the machine is."""

GIVES_UP_AFTER = 40.0
"""Seconds after the end of trouble in which all must go on."""

MADE_WITHIN = 20.0
"""Seconds within which trouble begins, is told, or ends."""


@dataclass(slots=True)
class Sight:
    """The answers that clients got during one trouble, and seconds behind its end until all of them worked."""

    kind: Kind
    answers: Counter[str] = field(default_factory=Counter)
    normal_after: float = 0.0
    told: str = ""
    """The reasons of `/readyz`."""
    wrong: list[str] = field(default_factory=list)


@asynccontextmanager
async def limited(seconds: float, what: str) -> AsyncIterator[None]:
    """Let something take so long at most; what takes longer fails by its name, not as a test that stands still."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as failure:
        raise AssertionError(f"{what}: not within {seconds:.0f} s") from failure


class Watch:
    """A node with clients that take and settle one bucket after another."""

    def __init__(self, server: Server, place: Place) -> None:
        self._server = server
        self._place = place
        self._answers: Counter[str] = Counter()
        self._worked: dict[str, float] = {}
        """When each client's last whole round began that went well."""
        self.clients: list[asyncio.Task[None]] = []

    async def work(self, peer: Volunteer) -> None:
        """Take and settle one bucket after another, whatever comes of it."""
        while True:
            begun = monotonic()
            asked = await within(peer.send("ask", service="dm_check", count=1, wait=False), GIVES_UP_AFTER)
            if asked["type"] == "error":
                self._answers[asked["code"]] += 1
                await asyncio.sleep(0.02)
                continue

            bucket = await peer.push("bucket")
            submit = {"bucket_id": bucket["bucket_id"], "claim": bucket["claim"], "final": True}
            results = [{"item": item["item"], "dm": "DM"} for item in bucket["items"]]
            while True:
                answer = await within(peer.send("submit", **submit, results=results), GIVES_UP_AFTER)
                if answer["type"] == "stored":
                    self._answers["stored"] += 1
                    self._worked[peer.client_id] = begun
                    await asyncio.sleep(PAUSE)
                    break
                self._answers[answer["code"]] += 1
                if answer["code"] != "unavailable":
                    break
                await asyncio.sleep(0.02)

    async def ready(self) -> None:
        """Wait until the node says again that it is ready."""

        async def is_ready() -> bool:
            return (await self._server.node.parts.work.readiness.report()).ready

        await eventually(is_ready, "the node is not ready again", GIVES_UP_AFTER)

    async def kept_alive(self) -> bool:
        """Whether the connections of the node to the server look whether that is there."""
        async with self._server.node.parts.core.database.connection() as db:
            sock = db._con._transport.get_extra_info("socket")
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    async def see(self, kind: Kind, seconds: float) -> Sight:
        """Make one trouble for some seconds, and wait until it is over."""
        sight = Sight(kind)
        faults = self._server.node.events.counts["fault"]
        self._answers.clear()
        readiness = self._server.node.parts.work.readiness

        async with AsyncExitStack() as trouble:
            async with limited(MADE_WITHIN, f"{kind.name} begins"):
                await trouble.enter_async_context(kind.trouble(self._place))
            await asyncio.sleep(seconds)
            async with limited(MADE_WITHIN, f"{kind.name} is told"):
                sight.told = "; ".join((await readiness.report()).reasons)
            async with limited(MADE_WITHIN, f"{kind.name} ends"):
                await trouble.aclose()
        over = monotonic()

        async def all_work() -> bool:
            for client in self.clients:
                if client.done():
                    await client  # raises what ended it
            return len(self._worked) == CLIENTS and min(self._worked.values()) > over

        try:
            await eventually(all_work, "clients still do not work", GIVES_UP_AFTER)
        except AssertionError as failure:
            raise AssertionError(f"{kind.name}: {failure}; they saw {self._answers}") from None
        sight.normal_after = max(self._worked.values()) - over
        sight.answers = self._answers.copy()
        sight.wrong = self._judge(sight, faults)
        return sight

    def _judge(self, sight: Sight, faults: int) -> list[str]:
        node, wrong = self._server.node, []
        if node.failed or any(task.done() for task in node.tasks if task.get_name() != "warmup"):
            wrong.append("the node, or a part of it, has ended")
        if failing := node.parts.supervisor.failing():
            wrong.append(f"parts failed: {failing}")
        if node.events.counts["fault"] != faults:
            wrong.append(f"faults: {[event.text for event in node.events.since(0) if event.kind == 'fault']}")
        if strange := sight.answers.keys() - {"stored", "unavailable", "no_work", "stale_claim"}:
            wrong.append(f"clients saw {sorted(strange)}")
        if sight.normal_after > sight.kind.normal_within:
            wrong.append(f"normal after {sight.normal_after:.1f} s, not {sight.kind.normal_within:.0f}")
        return wrong


@asynccontextmanager
async def watching(postgres: TroubledPostgres, folder: Path, dsn: str | None = None) -> AsyncIterator[Watch]:
    """A node with clients at work; its way to the server is a proxy, unless `dsn` says another."""
    database = Database(postgres.server.dsn)
    await database.open()
    await configure(database, bucket_size=1, max_held_buckets=1000, newcomer_buckets=1000)

    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(Proxy(lambda: postgres.port))
        settings = Settings(port=0, ops_port=0, data=folder, node_lease=60.0)
        node = Node(settings, dsn=dsn or postgres.dsn_of(way.port))
        server = Server(await stack.enter_async_context(node), database, stack)
        admin = await server.admin()
        watch = Watch(server, Place(postgres, way))
        for number in range(CLIENTS):
            await admin.add(3000, prefix=f"trouble{monotonic()}_")
            watch.clients.append(asyncio.create_task(watch.work(await server.volunteer(f"client{number}"))))
        await database.close()  # nothing of ours is in the way of what is done to the server

        yield watch

        for task in watch.clients:
            task.cancel()
        for outcome in await asyncio.gather(*watch.clients, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError) and isinstance(outcome, BaseException):
                raise outcome
    with contextlib.suppress(OSError):
        await database.close()
