"""How many keys strangers can read without settling one, with the defaults of a node beyond loopback.

Each reader holds what it may, reads it, gives it back in its way and asks again, as often as it is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from coordinator.store.pool import Database
from tests.bench.rows import SIZE
from tests.bench.world import World
from tests.harness import Message, Volunteer
from tests.hostile.chance import Outside

ADDRESS, CROWDED = "203.0.113.{}", "198.51.100.7"
"""The address of a reader that is alone, and that of all of a crowd."""

CHOICE = {"service": "dm_check", "profile": {"source": "reader"}}

READ_AT_MOST = 2
"""Buckets that are held at once; who may hold more has settled something."""


@dataclass(slots=True)
class Reader:
    """One identity that reads, and the keys that it, or all of its crowd, has read."""

    server: Outside
    name: str
    address: str
    way: Callable[[Reader, Volunteer, list[Message]], Awaitable[Volunteer]]
    keys: set[str] = field(default_factory=set)

    async def session(self) -> Volunteer:
        """Connect, and register if it has to."""
        peer = await self.server.client(additional_headers={"X-Forwarded-For": self.address})
        if not (await peer.hello(self.name))["registered"]:
            await peer.ok("register", screen_name=self.name, services=[CHOICE])
        return peer

    async def read(self, seconds: float) -> None:
        """Read and give back for so long."""
        with_end = asyncio.get_running_loop().time() + seconds
        peer = await self.session()
        while (left := with_end - asyncio.get_running_loop().time()) > 0:
            await peer.ok("ask", service="dm_check", count=READ_AT_MOST)
            held: list[Message] = []
            try:
                async with asyncio.timeout(left) as waiting:
                    while len(held) < READ_AT_MOST:
                        pushed = await peer.pushes.get()
                        if pushed["type"] == "bucket":
                            held.append(pushed)
                            self.keys |= {item["key"] for item in pushed["items"]}
                            waiting.reschedule(asyncio.get_running_loop().time() + min(left, 0.5))
            except TimeoutError:
                pass
            await peer.ok("ask", service="dm_check", count=0)
            if held:
                peer = await self.way(self, peer, held)


async def release(reader: Reader, peer: Volunteer, held: list[Message]) -> Volunteer:
    for bucket in held:
        await peer.ask_for("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    return peer


async def disconnect(reader: Reader, peer: Volunteer, held: list[Message]) -> Volunteer:
    peer.cut()
    return await reader.session()


async def leave(reader: Reader, peer: Volunteer, held: list[Message]) -> Volunteer:
    await peer.ok("leave", service="dm_check")
    await peer.ok("join", **CHOICE)
    return peer


async def unregister(reader: Reader, peer: Volunteer, held: list[Message]) -> Volunteer:
    await peer.ok("unregister")
    await peer.ok("register", screen_name=reader.name, services=[CHOICE])
    return peer


async def final_submit(reader: Reader, peer: Volunteer, held: list[Message]) -> Volunteer:
    for bucket in held:
        await peer.ask_for("submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=[], final=True)
    return peer


WAYS = (release, disconnect, leave, unregister, final_submit)


@dataclass(frozen=True, slots=True)
class Harvest:
    """The keys that so many identities read in so many seconds."""

    who: str
    identities: int
    keys: int

    @property
    def buckets(self) -> float:
        """Buckets that each identity read."""
        return self.keys / self.identities / SIZE


async def harvest(world: World, seconds: float) -> list[Harvest]:
    """Let one identity read in each way, from an address of its own, and meanwhile 50 of one address in all ways."""
    async with AsyncExitStack() as stack:
        database = Database(world.dsn, size=2)
        await database.open()
        stack.push_async_callback(database.close)
        await world.ready_buckets("dm_check", 400)

        server = Outside(world, database, stack)
        alone = [Reader(server, way.__name__, ADDRESS.format(place), way) for place, way in enumerate(WAYS)]
        crowd = [Reader(server, f"crowd{n}", CROWDED, WAYS[n % len(WAYS)]) for n in range(50)]
        for reader in crowd:
            reader.keys = crowd[0].keys
        await asyncio.gather(*(reader.read(seconds) for reader in (*alone, *crowd)))

        found = [Harvest(reader.name, 1, len(reader.keys)) for reader in alone]
        return [*found, Harvest("fifty of one address", len(crowd), len(crowd[0].keys))]
