"""How cost grows with the number of services, and with the results that an account has already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import perf_counter

from tests.bench.asking import asks
from tests.bench.figures import Figure, percentile
from tests.bench.peer import submission, volunteer
from tests.bench.world import START, World

LOOK = 2.0
"""Seconds for which an idle node is watched."""


async def services(world: World, rounds: int, counts: Sequence[int]) -> list[Figure]:
    """Measure what an idle node asks of the database, and how long an ask takes, with that many services."""
    figures = []
    async with AsyncExitStack() as stack:
        admin = await world.admin()
        stack.push_async_callback(admin.close)
        await world.register(["alone"])
        peer = await volunteer(world.url, "alone")
        stack.push_async_callback(peer.close)

        # Each new service is filled with what is in the catalogue: that is work, and waited for.
        await world.sql("TRUNCATE item, enrolment, waiting")
        there = await world.sql("SELECT count(*) FROM service WHERE state = 'active'")

        for count in counts:
            for n in range(there, count):
                await admin.request("service.add", service=f"extra{n}", plugin="dm_check", settings={})
            there = max(there, count)
            async with asyncio.timeout(START):
                while await world.sql("SELECT count(*) FROM service_fill"):  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.1)

            calls, busy, asked = [], [], []
            for _ in range(rounds):
                before, begun = await world.cost(), perf_counter()
                await asyncio.sleep(LOOK)
                spent, seconds = (await world.cost()).since(before), perf_counter() - begun
                calls.append(spent.calls / seconds)
                busy.append(spent.milliseconds / seconds / 1000)
                asked.append(percentile(await asks(world, peer, 20), 0.5) * 1000)

            figures += [
                Figure(f"{there} services: statements of an idle node", "/s", calls),
                Figure(f"{there} services: time in statements of an idle node", "s/s", busy),
                Figure(f"{there} services: ask → bucket, p50", "ms", asked),
            ]

        for n in range(counts[0], there):
            if n >= 3:
                await admin.request("service.revoke", service=f"extra{n}")
    return figures


async def history(world: World, rounds: int, counts: Sequence[int]) -> list[Figure]:
    """Measure how long a submit takes when each account of its bucket has that many results already."""
    figures = []
    async with AsyncExitStack() as stack:
        await world.register(["alone"])
        peer = await volunteer(world.url, "alone")
        stack.push_async_callback(peer.close)

        for count in counts:
            times = []
            for _ in range(rounds):
                await world.wait_items("dm_check", 10)
                await world.sql(
                    f"""INSERT INTO result (item_id, service_id, claim_id, value)
                        SELECT item_id, service_id, -n, '{{"dm": "DM"}}'
                          FROM waiting_item, generate_series(1, {count}) n""",
                    "VACUUM ANALYZE result",
                )

                await peer.request("ask", service="dm_check", count=1)
                bucket = await peer.until("bucket")
                begun = perf_counter()
                await peer.request("submit", **submission(bucket))
                times.append((perf_counter() - begun) * 1000)
            figures.append(Figure(f"submit → stored, {count:,} results an account before", "ms", times))
        await world.sql("TRUNCATE result")
    return figures
