"""Volunteers that make a node's figures move: one works, one holds, one gives back, one is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.harness import Admin, Server, Volunteer

PACE = 0.05
"""Seconds that a check of a whole bucket takes."""


async def work(peer: Volunteer) -> None:
    """Settle buckets one after the other, for ever."""
    while True:
        bucket = await peer.bucket()
        await asyncio.sleep(PACE)
        stored = await peer.submit(bucket)
        assert stored["type"] == "stored", stored


class Crew:
    """Who is there; `worker` goes on in the background."""

    def __init__(self, admin: Admin, worker: Volunteer, holder: Volunteer, bucket_id: str) -> None:
        self.admin = admin
        self.worker = worker
        self.holder = holder
        self.bucket_id = bucket_id


@asynccontextmanager
async def at_work(server: Server, items: int = 4000) -> AsyncIterator[Crew]:
    """A node on which work goes on."""
    admin = await server.admin()
    await admin.add(items, services=["dm_check"])
    worker, holder = await server.volunteer("worker"), await server.volunteer("holder")
    bucket = await holder.bucket()
    giver = await server.volunteer("giver")
    given = await giver.bucket()
    await giver.ok("release", bucket_id=given["bucket_id"], claim=given["claim"])
    gone = await server.volunteer("gone")
    await gone.bucket()
    gone.cut()
    task = asyncio.create_task(work(worker))
    try:
        yield Crew(admin, worker, holder, bucket["bucket_id"])
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
