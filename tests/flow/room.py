"""A node whose clock stands still: its steps are called by the tests, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coordinator.app import Node
from coordinator.flow.bucket_builder import BucketBuilder, BuildOutcome, BuildReason
from coordinator.flow.catalogue import Entry
from coordinator.model import BucketId, Claimed
from coordinator.store import claims
from coordinator.store.pool import Database
from coordinator.store.results import CheckedSubmit, SubmitOutcome
from coordinator.wire.admin import items as wire
from coordinator.wire.frames import Request
from tests.store.bench import Bench, Worker

# Everything that the clock looks at, of one service.  That no round was run meanwhile is no outage.
_LATER = """
UPDATE bucket SET touched_at = touched_at - make_interval(secs => {0}),
                  kept_until = kept_until - make_interval(secs => {0}),
                  split_at = split_at - make_interval(secs => {0}) WHERE service_id = {1} AND state <> 'done';
UPDATE claim SET begun_at = begun_at - make_interval(secs => {0}), ended_at = ended_at - make_interval(secs => {0})
 WHERE service_id = {1};
UPDATE membership SET wait_until = wait_until - make_interval(secs => {0}) WHERE service_id = {1};
UPDATE return_block SET until = until - make_interval(secs => {0});
UPDATE bucket SET rank_at = rank_at - make_interval(secs => {0}), since = since - make_interval(secs => {0})
 WHERE service_id = {1} AND state <> 'done';
UPDATE waiting SET rank_at = rank_at - make_interval(secs => {0}), since = since - make_interval(secs => {0})
 WHERE service_id = {1};
DELETE FROM server_clock"""

_READY = """
SELECT b.bucket_id, b.rank_at FROM bucket b
 WHERE b.service_id = $1 AND b.state = 'ready' AND b.split_at IS NULL
   AND NOT EXISTS (SELECT FROM return_block g
                    WHERE g.client_id = $2 AND g.bucket_id = b.bucket_id AND g.until > now())"""

SAME_ORDER = """
UPDATE bucket b SET rank_at = b.rank_at + o.n * interval '1 microsecond'
  FROM (SELECT bucket_id, row_number() OVER (ORDER BY rank_at, items) AS n
          FROM bucket JOIN bucket_items USING (bucket_id) WHERE service_id = $1 AND state = 'ready') o
 WHERE b.bucket_id = o.bucket_id"""
"""Takes chance out of the pool, which is among equal ranks only: an example must go the same way each time."""

_REFUSED = "SELECT bucket_id FROM return_block WHERE client_id = $1 AND bucket_id = ANY ($2) AND until > now()"

_HAS_TO_WAIT = "SELECT wait_until > now() FROM membership WHERE client_id = $1 AND service_id = $2"

_OVERTAKEN = """
SELECT (SELECT min(rank_at) FROM waiting_item WHERE service_id = $1)
     < (SELECT max(rank_at) FROM bucket WHERE service_id = $1 AND state = 'ready' AND split_at IS NULL)"""


@dataclass(frozen=True, slots=True)
class Queue:
    """Buckets that a client may be handed, as before an ask, by their ranks."""

    room: Room
    worker: Worker
    ready: dict[BucketId, datetime]

    async def check(self, got: Sequence[BucketId]) -> None:
        """Check that each bucket handed out since then was due before all that it left."""
        left = [rank for bucket, rank in self.ready.items() if bucket not in got]
        if left:
            assert all(bucket in self.ready for bucket in got), "made anew while there were ready ones"
            assert all(self.ready[bucket] <= min(left) for bucket in got), "a bucket that ranks first was passed over"

        # An ask makes nobody wait longer, so what is in force now was in force at the claim.
        client = self.worker.client_id
        refused = await self.room.rows(_REFUSED, client, list(got))
        assert not refused, "a client was handed what it gave back lately"
        waits = await self.room.value(_HAS_TO_WAIT, client, self.room.service)
        assert not (got and waits), "a client was served that has to wait"

        if (front := await self._front()) is not None:
            bound = front + timedelta(seconds=self.room.entry.service.settings.max_head_start)
            found = await self.room.rows("SELECT since FROM bucket WHERE bucket_id = ANY ($1)", list(got))
            assert all(row["since"] <= bound for row in found), "an item was overtaken by what came after its bound"

    async def _front(self) -> datetime | None:
        """The first rank of what still waits, or could have been handed out instead; None if there is no such."""
        waiting = await self.room.value(
            "SELECT min(rank_at) FROM waiting_item WHERE service_id = $1", self.room.service
        )
        ready = await self.room.rows(_READY, self.room.service, self.worker.client_id)
        return min([row["rank_at"] for row in ready] + ([] if waiting is None else [waiting]), default=None)


class Room(Bench):
    """One service, and the steps of a node that work on it."""

    name: str
    entry: Entry

    def __init__(self, database: Database, node: Node, bench: Bench) -> None:
        super().__init__(database, bench.service, node.boot)
        self.node = node
        self.builder: BucketBuilder = node.parts.work.builder

    @classmethod
    async def open(cls, node: Node, database: Database, name: str, **settings: Any) -> Room:
        """A new service on that node, which from now on knows no other one."""
        room = cls(database, node, await Bench.make(database, name, **settings))
        room.name = name
        async with database.connection() as db:
            await node.parts.core.catalogue.load(db)
        entry = node.parts.core.catalogue.get(name)
        node.parts.core.catalogue._by_id.clear()
        node.parts.core.catalogue._by_id[room.service] = entry
        room.entry = entry
        return room

    # What the clock does

    async def tick(self) -> None:
        """One look at the clock."""
        await self.node.parts.work.expiry.tick()

    async def later(self, seconds: float) -> None:
        """Let so much time pass for everything in this service."""
        await self.execute(_LATER.format(float(seconds), int(self.service)))
        self.builder.forget(self.service)

    async def build(self, reason: BuildReason = BuildReason.AHEAD) -> BuildOutcome:
        """One run of the builder."""
        return await self.builder.build(self.entry, reason)

    # What clients and admins do

    async def ask(self, worker: Worker, count: int, *, first: str | None = None) -> list[Claimed]:
        """Serve an ask as the grant does it: the pool, then what waits, then what is not given back.

        `first` is a statement on the service that runs before each claim.
        """
        got: list[Claimed] = []
        while len(got) < count:
            if first is not None:
                await self.execute(first, self.service)
            more = await self.claim(*[worker] * (count - len(got)))
            if not more:
                async with self.database.connection() as db:
                    one = await claims.claim_unblocked(db, self.service, worker.demand, self.boot, self.settings)
                more = [] if one is None else [one]
            if not more and not (await self.build(BuildReason.NOTHING_READY)).buckets:
                break
            got += more
        return got

    async def queue_of(self, worker: Worker) -> Queue:
        """Return the queue of a client as it is now."""
        while await self.value(_OVERTAKEN, self.service):
            await self.build()  # as the next look of the clock does, half a second later at most
        ready = await self.rows(_READY, self.service, worker.client_id)
        return Queue(self, worker, {row["bucket_id"]: row["rank_at"] for row in ready})

    async def submit(self, settling: CheckedSubmit) -> SubmitOutcome:
        """Through the node's group commit."""
        async with asyncio.timeout(10):
            return await self.node.parts.work.commits.add(settling)

    async def add(self, keys: list[str], priority: int = 100) -> None:
        await self._ask(wire.ItemAdd(items=[{"key": key} for key in keys], services=[self.name], priority=priority))

    async def prioritise(self, keys: list[str], priority: int = 0) -> None:
        await self._ask(wire.ItemPrioritize(keys=keys, service=self.name, priority=priority))

    async def remove(self, keys: list[str]) -> None:
        await self._ask(wire.ItemDelete(keys=keys))

    async def retry(self, keys: list[str]) -> None:
        await self._ask(wire.ItemRetry(keys=keys, service=self.name))

    async def _ask(self, request: Request) -> None:
        """Carry out a request of an admin."""
        await self.node.parts.administration.steps[type(request)](request)

    async def ids(self) -> dict[str, int]:
        """The items of this service by key."""
        found = await self.rows(
            "SELECT i.key, i.item_id FROM item i JOIN enrolled_item s USING (item_id) WHERE s.service_id = $1",
            self.service,
        )
        return {row["key"]: row["item_id"] for row in found}


async def stop_clock(node: Node) -> None:
    """End the tasks that look at the clock; the tests do."""
    for task in node.tasks:
        if task.get_name() in ("expiry", "lease"):
            task.cancel()
            await asyncio.wait([task])
