"""One client that asks, one bucket at a time, with a full pool."""

from __future__ import annotations

from time import perf_counter

from tests.bench.peer import Peer, submission
from tests.bench.world import World


async def asks(world: World, peer: Peer, count: int) -> list[float]:
    """Seconds from each ask to its bucket, which is then submitted."""
    await world.wait_items("dm_check", count * 180)
    await world.pool_filled("dm_check", count)
    times = []
    for _ in range(count):
        begun = perf_counter()
        await peer.send("ask", service="dm_check", count=1)
        bucket = await peer.until("bucket")
        times.append(perf_counter() - begun)
        await peer.request("submit", **submission(bucket))
    return times
