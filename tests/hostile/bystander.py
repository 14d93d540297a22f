"""A client that works beside the floods, and others that only hold connections: they must notice nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import perf_counter

from tests.bench.peer import Peer, submission, volunteer
from tests.bench.world import World

PACE = 0.005
"""Seconds between a bucket and the next ask."""

SIZE = 5
"""Items of a bucket: what is measured is the way, not the load."""

CROWD = 2000
"""Clients that there are besides: lists of them are as long as lists get."""


class Bystanders:
    """One client that works, and one more connection on each channel."""

    def __init__(self, worker: Peer, idle: list[Peer]) -> None:
        self._worker = worker
        self._idle = idle

    @classmethod
    async def of(cls, world: World, stack: AsyncExitStack) -> Bystanders:
        """Connect them; the pool is filled for some thousand asks."""
        await world.register(["worker", "idler", *(f"member{number}" for number in range(CROWD))])
        admin = await world.admin()
        await admin.request("service.configure", service="dm_check", settings={"bucket_size": SIZE})
        worker, idler = await volunteer(world.url, "worker"), await volunteer(world.url, "idler")
        viewer = await Peer.open(f"{world.url}/v1/stats")
        await viewer.request("hello", protocol=1)
        for peer in (worker, idler, viewer, admin):
            stack.push_async_callback(peer.close)
        return cls(worker, [idler, viewer, admin])

    async def fill(self, world: World, seconds: float) -> None:
        """Let there be work for so many seconds."""
        asks = int(seconds / PACE)
        await world.wait_items("dm_check", asks * SIZE)
        await world.pool_filled("dm_check", 20)

    async def asks(self, seconds: float) -> list[float]:
        """Ask, submit, pause, for so long; returns the seconds from each ask to its bucket."""
        times = []
        end = perf_counter() + seconds
        while (begun := perf_counter()) < end:
            await self._worker.send("ask", service="dm_check", count=1)
            bucket = await self._worker.until("bucket")
            times.append(perf_counter() - begun)
            await self._worker.request("submit", **submission(bucket))
            await asyncio.sleep(PACE)
        return times

    @property
    def disconnected(self) -> int:
        """How many of them have lost their connection."""
        return sum(peer.connection.close_code is not None for peer in (self._worker, *self._idle))
