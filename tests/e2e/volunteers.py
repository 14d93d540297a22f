"""Volunteers that make a node's figures move: one works, one holds, one gives back, one is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.harness import Admin, Server, Volunteer

CHECK_SECONDS = 0.05
"""Seconds that the check of a whole bucket takes."""


AS_LONG_AS_A_TEST = 600.0
"""Seconds; more than any test takes."""


async def work(volunteer: Volunteer) -> None:
    """Settle one bucket after the other until cancelled."""
    while True:
        await volunteer.ok("ask", service="dm_check", count=1)
        bucket = await volunteer.push("bucket", AS_LONG_AS_A_TEST)  # all items may be settled before the test ends
        await asyncio.sleep(CHECK_SECONDS)
        stored = await volunteer.submit(bucket)
        assert stored["type"] == "stored", stored


class Volunteers:
    """The volunteers that are connected; `worker` settles buckets in the background, `holder` keeps `bucket_id`."""

    def __init__(self, admin: Admin, worker: Volunteer, holder: Volunteer, bucket_id: str) -> None:
        self.admin = admin
        self.worker = worker
        self.holder = holder
        self.bucket_id = bucket_id


@asynccontextmanager
async def volunteers_at_work(server: Server, items: int = 4000) -> AsyncIterator[Volunteers]:
    """Add items to a node and connect volunteers that work on them."""
    admin = await server.admin()
    await admin.add(items, services=["dm_check"])

    worker, holder = await server.volunteer("worker"), await server.volunteer("holder")
    held_bucket = await holder.bucket()

    giver = await server.volunteer("giver")
    returned_bucket = await giver.bucket()
    await giver.ok("release", bucket_id=returned_bucket["bucket_id"], claim=returned_bucket["claim"])

    gone = await server.volunteer("gone")
    await gone.bucket()
    gone.cut()

    task = asyncio.create_task(work(worker))
    try:
        yield Volunteers(admin, worker, holder, held_bucket["bucket_id"])
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
