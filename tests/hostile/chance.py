"""The attacker that wants one chosen item: whatever it does, it comes to it as often as chance says.

What slows it down (its waits, the waits of its address, what it may hold) is lifted between its asks, so that they are
many; a bucket that it gave back is still kept from it for a while.  So what is measured is the drawing alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import sqrt

from coordinator.store.pool import Database
from tests.bench.world import World
from tests.harness import Admin, Message, Server
from tests.serve.test_reading import WAYS, Way, release
from tests.serve.tools import eventually, execute, value

BUCKETS = 20
"""Ready buckets that a hunt begins with, all of one rank."""

SIZE = 2
"""Items of a bucket."""

DEVIATIONS = 4.5
"""Standard deviations past the mean: chance passes them once in 300,000 hunts."""

_READY = """
FROM bucket b JOIN bucket_items c USING (bucket_id)
WHERE b.state = 'ready' AND b.split_at IS NULL
  AND b.rank_at = (SELECT min(rank_at) FROM bucket WHERE state = 'ready' AND split_at IS NULL)
  AND NOT EXISTS (SELECT FROM return_block r
                   WHERE r.bucket_id = b.bucket_id AND r.client_id = $1 AND r.until > now())"""

COUNT_READY = f"SELECT count(*) {_READY}"

ITEMS_READY = f"""
SELECT coalesce(array_agg(n.item), '{{}}') FROM (
    SELECT unnest(c.items) AS item, generate_subscripts(c.items, 1) AS place, b.settled {_READY}) n
 WHERE get_bit(n.settled, n.place - 1) = 0"""

FORGET_WAITS = (
    "UPDATE membership SET wait_until = NULL, streak = 0",
    "DELETE FROM newcomer_block",
    "UPDATE bucket SET attempts = 0 WHERE attempts > 0",
)


class Outside(Server):
    """A node that is a process of its own, for what is written for one in this process."""

    def __init__(self, world: World, database: Database, stack: AsyncExitStack) -> None:
        self.url = world.url
        self.database = database
        self.stack = stack


@dataclass(slots=True)
class Hunt:
    """So many asks for one chosen item, how often it came, and how often chance would have it come."""

    way: str
    asks: int = 0
    hits: int = 0
    expected: float = 0.0
    variance: float = 0.0

    @property
    def most(self) -> float:
        """The hits that chance does not pass."""
        return self.expected + DEVIATIONS * sqrt(self.variance) + 1

    @property
    def least(self) -> float:
        """The hits that chance does not fall below."""
        return self.expected - DEVIATIONS * sqrt(self.variance) - 1

    def drew(self, *, hit: bool, chance: float) -> None:
        """Count one bucket that came."""
        self.asks += 1
        self.hits += hit
        self.expected += chance
        self.variance += chance * (1 - chance)


async def hunt(server: Server, admin: Admin, way: Way, names: Sequence[str], asks: int) -> Hunt:
    """Ask so many times, with all of these identities in turn; once each holds a bucket, all are given back."""
    found = Hunt(way.__name__)
    peers = [await server.volunteer(name) for name in names]
    pool = _Pool(server, admin, names[0])
    target: int | None = None

    while found.asks < asks:
        await pool.fill(names)
        held: list[list[Message]] = []
        for peer in peers:
            items = await value(server.database, ITEMS_READY, peer.client_id)
            if not items:
                break
            if target not in items:
                target = secrets.choice(items)
            chance = 1 / await value(server.database, COUNT_READY, peer.client_id)
            bucket = await peer.bucket()
            held.append([bucket])
            found.drew(hit=target in [item["item"] for item in bucket["items"]], chance=chance)

        for place, buckets in enumerate(held):
            peers[place] = await way(server, peers[place], buckets)
        for statement in FORGET_WAITS:
            await execute(server.database, statement)
    await pool.empty()
    return found


class _Pool:
    """The buckets of a hunt: once an identity may have few of them, they go, and others are made."""

    def __init__(self, server: Server, admin: Admin, name: str) -> None:
        self._server = server
        self._admin = admin
        self._prefix = name
        self._filled = 0

    async def fill(self, names: Sequence[str]) -> None:
        """Let there be enough buckets for all of these identities."""
        if self._filled and await self._enough(names, BUCKETS // 2):
            return
        if self._filled:
            await self.empty()
        self._filled += 1
        await self._admin.add(BUCKETS * SIZE, prefix=f"{self._prefix}_{self._filled}_", services=["dm_check"])

        async def made() -> bool:
            return await self._enough(names[:1], BUCKETS)

        await eventually(made, "no buckets are made")

    async def empty(self) -> None:
        """Delete what is left: older buckets would go out first."""
        keys = [f"{self._prefix}_{self._filled}_{number}" for number in range(BUCKETS * SIZE)]
        await self._admin.ok("item.delete", keys=keys)

    async def _enough(self, names: Sequence[str], count: int) -> bool:
        for name in names:
            if await value(self._server.database, COUNT_READY, name) < count:
                return False
        return True


async def hunts(world: World, asks: int) -> list[Hunt]:
    """Hunt in each way with one identity, and with fifty at once; `asks` of all together."""
    async with AsyncExitStack() as stack:
        database = Database(world.dsn, size=2)
        await database.open()
        stack.push_async_callback(database.close)

        server = Outside(world, database, stack)
        admin = await server.admin()
        # As on loopback, newcomers may hold many, so that the pool has enough to draw from.
        settings = {"bucket_size": SIZE, "newcomer_buckets": BUCKETS}
        await admin.ok("service.configure", service="dm_check", settings=settings)
        found = []
        for number, way in enumerate(WAYS):
            found.append(await hunt(server, admin, way, [f"hunter{number}"], asks // (2 * len(WAYS))))

        many = [f"many{number}" for number in range(50)]
        found.append(await hunt(server, admin, release, many, asks // 2))
        found[-1].way = "fifty identities"
        return found
