"""What the clock does: leases, dead buckets, kept ones, broken ones, idle clients.  protocol.md, "Life of a bucket"

Every step may be done by any node and is safe to repeat; a crash between two of them loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import msgspec
import structlog

from coordinator.errors import Unavailable
from coordinator.flow.activity import ActivityLog
from coordinator.flow.bucket_builder import BucketBuilder, frame, new_bucket_id
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.client_counters import ClientCounters
from coordinator.flow.grant import Grant
from coordinator.flow.health_monitor import HealthMonitor
from coordinator.flow.release import Releases
from coordinator.flow.session_registry import SessionRegistry
from coordinator.flow.signals import Signals, batches
from coordinator.model import Boot, BucketId, ClaimNumber, ClientId, ServiceId
from coordinator.observe.events import Events
from coordinator.store import activity, claims, clients, nodes, rechecks
from coordinator.store import building as store
from coordinator.store.building import BucketToSplit, NewBucket
from coordinator.store.due import look
from coordinator.store.pool import Connection, Database
from coordinator.wire.client import BucketDead

log = structlog.get_logger()

TICK = 0.5
"""Seconds between looks at the clock: times in settings are noticed within 1 s."""

RENEW = 5.0
"""Seconds between renewals of the lease."""

SMALL = 20
"""A bucket that broke clients is cut into parts of this size, and those into single items."""


def part_size(items: int) -> int:
    """Of how many items each the parts are that a broken bucket is cut into."""
    return SMALL if items > SMALL else 1


class Expiry:
    """Carries out what is due."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        registry: SessionRegistry,
        grant: Grant,
        builder: BucketBuilder,
        releases: Releases,
        signals: Signals,
        counters: ClientCounters,
        watch: HealthMonitor,
        boot: Boot,
        recollect_window: float,
        lease: float,
        lost_lease: Callable[[], None],
        activity_log: ActivityLog,
        events: Events,
        load: Callable[[], str],
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._registry = registry
        self._grant = grant
        self._builder = builder
        self._releases = releases
        self._signals = signals
        self._counters = counters
        self._watch = watch
        self._boot = boot
        self._recollect_window = recollect_window
        self._lease = lease
        self._lost_lease = lost_lease
        self._activity = activity_log
        self._events = events
        self._load = load
        self._renewed = 0.0

    async def run(self) -> None:
        """Look at the clock every half second, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            group.create_task(self._look())

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await self._tick()
            except Unavailable:
                self._releases.doubt()
            except Exception as failure:
                # Whatever is wrong with one bucket or service must not stop the clock for the others.
                self._activity.fault("node.fault", "clock", repr(failure))
                log.exception("a step of the clock failed")
            await asyncio.sleep(max(0.05, TICK - (loop.time() - begun)))

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        self._renewed = loop.time()
        while True:
            try:
                await self._keep_lease()
            except Unavailable:
                # Alone, nobody else can free what is held here: the sessions stay until the database is back.
                if not self._signals.alone and loop.time() > self._renewed + self._lease * 0.8:
                    self._lost_lease()
            await asyncio.sleep(min(RENEW, self._lease / 3))

    async def _keep_lease(self) -> None:
        begun = asyncio.get_running_loop().time()
        async with self._database.connection() as db:
            if await nodes.renew(db, self._boot, self._lease, self._load()):
                self._renewed = begun
            else:
                log.error("another node declared this one gone")
                self._lost_lease()
            self._signals.alone = await nodes.others(db, self._boot) == 0
            gone = await nodes.expired(db, self._boot)
            if gone:
                await activity.note_nodes(db, self._activity.who, gone, "its lease ran out")
                self._events.emit("node", f"{len(gone)} gone: the lease ran out")
            await self.free_crashed(db)

    async def free_crashed(self, db: Connection) -> None:
        """Free what the sessions of nodes held that are gone."""
        freed = await claims.release_crashed(db)
        await nodes.end_sessions(db)
        self._releases.wake(one.service_id for one in freed)
        for one in freed:
            self._events.emit(
                "lost",
                "taken away: its node is gone",
                client=one.client_id,
                service=self._catalogue.name_of(one.service_id),
                bucket=str(one.bucket_id),
            )
        if freed:
            log.warning("freed what crashed nodes held", buckets=len(freed))

    async def _tick(self) -> None:
        async with self._database.connection() as db:
            found = await look(db, [entry.service for entry in self._catalogue.all()])
            for entry in self._catalogue.all():
                settings, service = entry.service.settings, entry.service.service_id
                it = found.get(service)
                if it is None:  # it was added meanwhile
                    continue
                marked = await claims.mark_dead(db, service, settings.dead_after) if it.dead else []
                for one in marked:
                    self._counters.look(one.client_id, service)
                    what = f"held for {settings.dead_after:g} s without a result, {one.remaining} items left"
                    marks = {"client": one.client_id, "service": entry.service.name, "bucket": str(one.bucket_id)}
                    self._events.emit("dead", what, **marks)
                    log.info("bucket dead", session=str(one.session_id), remaining=one.remaining, **marks)
                told = [[one.client_id, str(one.bucket_id), one.claim] for one in marked]
                for part in batches(told):
                    self._signals.tell("dead", claims=part, release_after=settings.release_after)
                freed = []
                if it.over:
                    freed = await claims.release_dead(db, service, settings.release_after, self._recollect_window)
                for _ in freed:
                    self._counters.dead(service)
                self._releases.tell_lost(freed, "released")
                self._releases.wake(one.service_id for one in freed)
                wanting = self._grant.waiting_clients(service)
                if wanting:
                    await clients.touch(db, service, wanting, settings.idle_after)
                idle = await clients.make_idle(db, service, settings.idle_after, wanting) if it.idle else []
                if idle:
                    await activity.note_all(db, self._activity.who, "client.idle", idle, entry.service.name)
                for client in idle:
                    self._signals.tell("client", client=client)
            kept = await claims.release_kept(db)
            self._releases.wake(one.service_id for one in kept)
            await store.retire(db)
            await clients.purge_sessions(db)
        await self._recheck()
        await self._cut_broken([service for service, it in found.items() if it.broken])
        await self._watch.look()
        low = {service for service, it in found.items() if it.low}
        for entry in self._catalogue.all():
            if entry.service.state == "active" and entry.service.service_id in low:
                made = await self._builder.make(entry, wanted=False)
                if made.buckets:
                    self._signals.work(entry.service.service_id)

    def on_dead(self, signal: dict[str, Any]) -> None:
        """Buckets were marked dead; their holders here are told."""
        for client, bucket, claim in signal["claims"]:
            held = self._registry.held(ClientId(client), BucketId(UUID(bucket)))
            if held is not None and held.claim == ClaimNumber(claim):
                held.holder.push(BucketDead(bucket_id=bucket, claim=claim, release_after=signal["release_after"]))

    async def _recheck(self) -> None:
        for entry in self._catalogue.all():
            after, service = entry.service.settings.recheck_after, entry.service.service_id
            if after is None or entry.service.state != "active":
                continue
            async with self._database.transaction() as db:
                due = await rechecks.recheck(db, service, after) if await store.try_lock(db, service) else 0
            if due:
                self._signals.work(service)

    async def _cut_broken(self, services: Iterable[ServiceId]) -> None:
        for service in services:
            async with self._database.transaction() as db:
                # The builder's lock: deleting and prioritising must not miss an item on its way to another bucket.
                if not await store.try_lock(db, service):
                    continue
                due = await store.due_for_split(db, service, 20)
                for broken in due:
                    await self._cut(db, broken)
            self._releases.wake(broken.service_id for broken in due)

    async def _cut(self, db: Connection, broken: BucketToSplit) -> None:
        """180 → 20 → 1, and a single item that failed at two clients into quarantine."""
        if len(broken.items) == 1:
            if broken.clients < 2:
                await store.offer_again(db, broken.bucket_id)
                return
            await store.quarantine(db, broken.service_id, broken.items[0], broken.attempts)
            await store.close(db, [broken.bucket_id])
            outcome = f"{self._catalogue.by_id(broken.service_id).service.name}, after {broken.attempts} attempts"
            await activity.note_item(db, self._activity.who, "item.quarantine", broken.items[0], outcome)
            name = self._catalogue.by_id(broken.service_id).service.name
            what = f"item {broken.items[0]}, after {broken.attempts} attempts"
            self._events.emit("quarantine", what, service=name, bucket=str(broken.bucket_id))
            log.warning(
                "item quarantined",
                item=broken.items[0],
                attempts=broken.attempts,
                service=name,
                bucket=str(broken.bucket_id),
            )
            return
        size = part_size(len(broken.items))
        fragments = dict(zip(broken.all_items, msgspec.json.decode(broken.frame, type=list[msgspec.Raw]), strict=True))
        parts = [
            NewBucket(
                new_bucket_id(),
                broken.service_id,
                broken.rank_at,
                broken.since,
                broken.priority,
                items := broken.items[at : at + size],
                frame(bytes(fragments[item]).decode() for item in items),
            )
            for at in range(0, len(broken.items), size)
        ]
        await store.put_buckets(db, parts)
        await store.close(db, [broken.bucket_id])
        for part in parts:
            await store.move_twins(db, broken.bucket_id, part.bucket_id, part.items)
