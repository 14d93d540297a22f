"""Many clients at once: every item is settled exactly once."""

from __future__ import annotations

import asyncio
import random

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Message, Server, Volunteer
from tests.serve.tools import configure, eventually, join_again, value

ITEMS = 2_000


async def work(server: Server, name: str, done: asyncio.Event, chance: random.Random) -> int:
    """Work unreliably until all is done; returns the number of items stored for this client."""
    peer, stored = await server.volunteer(name), 0
    while not done.is_set():
        answer = await peer.ask_for("ask", service="dm_check", count=chance.randint(1, 3), wait=False)
        if answer["type"] == "error":
            assert answer["code"] == "no_work", answer
            await asyncio.sleep(0.1)
            continue
        for bucket in [await peer.push("bucket") for _ in range(answer["count"])]:
            if chance.random() < 0.1:
                await peer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
                continue
            stored += await settle(peer, bucket, chance)
        if chance.random() < 0.02:
            peer.cut()
            peer, _ = await join_again(server, name)
    return stored


async def settle(peer: Volunteer, bucket: Message, chance: random.Random) -> int:
    """Submit a bucket in one or two parts, sometimes twice, sometimes not all of it."""
    items = [item["item"] for item in bucket["items"]]
    half = chance.randint(0, len(items))
    split = half < len(items) and chance.random() < 0.5  # a part that settles all ends the claim
    parts = [(items[:half], False), (items[half:], True)] if split else [(items, True)]
    if chance.random() < 0.1:
        parts = [(items[:half], True)]
    stored = 0
    for part, final in parts:
        answer = await peer.submit(bucket, items=part, final=final)
        assert answer["type"] == "stored", answer
        stored += answer["stored"]
        if part and chance.random() < 0.1:
            repeat = await peer.submit(bucket, items=part, final=final)
            assert (repeat["type"], repeat["duplicate"], repeat["stored"]) == ("stored", True, 0), repeat
    return stored


async def test_fifty_clients_settle_two_thousand_items_exactly_once(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=7)
    server = await start_server(recollect_window=0.5)
    admin = await server.admin()
    await admin.add(ITEMS, services=["dm_check"])
    done = asyncio.Event()

    async def all_settled() -> bool:
        return bool(await value(database, "SELECT count(DISTINCT item_id) FROM result") == ITEMS)

    async def watch() -> None:
        try:
            await eventually(all_settled, "not all settled", 60)
        finally:
            done.set()

    *counts, _ = await asyncio.gather(*(work(server, f"client{n}", done, random.Random(n)) for n in range(50)), watch())
    assert await value(database, "SELECT count(*) FROM result") == ITEMS
    assert await value(database, "SELECT count(DISTINCT item_id) FROM result") == ITEMS
    assert sum(count or 0 for count in counts) == ITEMS
    assert await value(database, "SELECT count(*) FROM bucket WHERE state <> 'done'") == 0
