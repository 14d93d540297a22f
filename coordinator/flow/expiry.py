"""Expire what has reached its time: claims, dead buckets, idle clients, old results.  protocol.md, "Life of a bucket"

Any node may do each step, and each is safe to repeat; a crash between two steps loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.activity import ActivityLog
from coordinator.flow.bucket_builder import BucketBuilder, BuildReason
from coordinator.flow.bucket_splitter import BucketSplitter
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.health_monitor import HealthMonitor
from coordinator.flow.own_delays import OwnDelays
from coordinator.flow.release import Releases
from coordinator.flow.signal_types import ClaimsDied, ClientChanged, batches
from coordinator.model import ServiceId
from coordinator.store import activity, claims, clients, overdue, rechecks
from coordinator.store import building as store
from coordinator.store.due import DueWork, look
from coordinator.store.pool import Connection
from coordinator.wire.client import BucketDead
from coordinator.wording import counted

log = structlog.get_logger()

EXPIRY_INTERVAL = 0.5
"""Seconds between rounds, so that each time in the settings is kept to within 1 s."""


class Expiry:
    """Runs a round of expiry each half second."""

    def __init__(
        self,
        core: Core,
        grant: Grant,
        builder: BucketBuilder,
        releases: Releases,
        health_monitor: HealthMonitor,
        activity_log: ActivityLog,
    ) -> None:
        self._core = core
        self._grant = grant
        self._builder = builder
        self._releases = releases
        self._health_monitor = health_monitor
        self._activity = activity_log
        self._delays = OwnDelays(core)
        self.splitter = BucketSplitter(core, releases)

    async def run(self) -> None:
        """Run rounds until cancelled."""
        loop = asyncio.get_running_loop()

        while True:
            begun = loop.time()
            try:
                await self.tick()
            except Unavailable:
                self._core.lost_track.set()
            except Exception as failure:
                # An error in one bucket or service must not stop the expiry of the others.
                self._activity.fault("node.fault", "clock", repr(failure))
                log.exception("a step of the clock failed")
            await asyncio.sleep(max(0.05, EXPIRY_INTERVAL - (loop.time() - begun)))

    async def tick(self) -> None:
        """Carry out all that is due now.

        Raises:
            Unavailable: the database is away; the next round does the rest.
        """
        begun = monotonic()
        async with self._core.database.connection() as db:
            services = [entry.service for entry in self._core.catalogue.all()]
            due = await look(db, services, [self._core.fronts.known(service.service_id) for service in services])
            if due:
                self._tell_missed(next(iter(due.values())))
            blames = not self._delays.hold_up(monotonic() - begun)

            for entry in self._core.catalogue.all():
                of_service = due.get(entry.service.service_id)
                if of_service is not None:  # else it was added meanwhile
                    if blames and (of_service.dead or of_service.over):
                        await self._expire_buckets(db, entry, of_service)
                    await self._expire_memberships(db, entry, of_service)

            if any(of_service.kept for of_service in due.values()):
                kept = await claims.release_kept(db)
                self._releases.wake(bucket.service_id for bucket in kept)
            if any(of_service.done for of_service in due.values()):
                await store.retire(db)
        for entry in self._core.catalogue.all() if blames else ():
            most = entry.service.settings.max_claim_time
            await self._releases.expire(entry.service.service_id, most, self._delays.spared)

        await self._recheck()
        await self.splitter.split_due([service for service, of_service in due.items() if of_service.broken])
        await self._health_monitor.look()
        await self._refill(due)

    def _tell_missed(self, due: DueWork) -> None:
        """Tell of time that does not count, since no round was run in it; the database has noted it."""
        if due.missed > 0:
            text = (
                f"the database was away, its clock was set ahead, or no node ran, for {due.missed:.0f} s: "
                f"{due.credit:.0f} s do not count for what was held then"
            )
        elif due.missed < 0:
            text = f"the database's clock was set back by {-due.missed:.0f} s: deadlines and waits move with it"
        else:
            return

        self._core.events.emit("node", text)
        log.warning("time does not count", seconds=round(due.missed, 1), credit=round(due.credit, 1))

    async def _expire_buckets(self, db: Connection, entry: Entry, due: DueWork) -> None:
        """Mark buckets without a result for `dead_after` as dead, and release those dead for `release_after`."""
        settings, service = entry.service.settings, entry.service.service_id
        boot, spared = self._core.boot, self._delays.spared()
        marked = await overdue.mark_dead(db, service, settings.dead_after, boot, spared) if due.dead else []
        for bucket in marked:
            self._core.counters.look(bucket.client_id, service)
            text = f"held for {settings.dead_after:g} s without a result, {counted(bucket.remaining, 'item')} left"
            origin = {"client": bucket.client_id, "service": entry.service.name, "bucket": str(bucket.bucket_id)}
            self._core.events.emit("dead", text, **origin)
            log.info("bucket dead", session=str(bucket.session_id), remaining=bucket.remaining, **origin)

        dead = [(bucket.client_id, bucket.bucket_id, bucket.claim) for bucket in marked]
        for part in batches(dead):
            self._core.signals.tell(ClaimsDied(part, settings.release_after))

        freed = []
        if due.over:
            window = self._core.settings.recollect_window
            freed = await overdue.release_dead(db, service, settings.release_after, window, boot, spared)
        for _ in freed:
            self._core.counters.dead(service)
        self._releases.tell_lost(freed, "released")
        self._releases.wake(bucket.service_id for bucket in freed)

    async def _expire_memberships(self, db: Connection, entry: Entry, due: DueWork) -> None:
        """Make clients inactive that have not worked for `idle_after`; a client that waits for work is not idle."""
        settings, service = entry.service.settings, entry.service.service_id
        waiting = self._grant.waiting_clients(service)
        if waiting:
            await clients.touch(db, service, waiting, settings.idle_after)

        idle = await clients.make_idle(db, service, settings.idle_after, waiting) if due.idle else []
        if idle:
            await activity.note_all(db, self._core.actor, "client.idle", idle, entry.service.name)
        for client in idle:
            self._core.signals.tell(ClientChanged(client))

    async def _recheck(self) -> None:
        """Put items back into the queue whose newest result is older than `recheck_after`."""
        for entry in self._core.catalogue.all():
            after, service = entry.service.settings.recheck_after, entry.service.service_id
            if after is None or entry.service.state != "active":
                continue
            async with self._core.database.transaction() as db:
                due = await rechecks.recheck(db, service, after) if await store.try_lock(db, service) else 0
            if due:
                self._core.signals.work(service)

    async def _refill(self, due: Mapping[ServiceId, DueWork]) -> None:
        """Build buckets for services that have too few ready."""
        for entry in self._core.catalogue.all():
            of_service = due.get(entry.service.service_id)
            if entry.service.state == "active" and of_service is not None and of_service.low:
                outcome = await self._builder.build(entry, BuildReason.AHEAD)
                if outcome.buckets:
                    self._core.signals.work(entry.service.service_id, behind=outcome.behind)

    def on_dead(self, died: ClaimsDied) -> None:
        """Tell the holders here of buckets that were marked dead."""
        for client, bucket, claim in died.claims:
            held = self._core.registry.held(client, bucket)
            if held is not None and held.claim == claim:
                push = BucketDead(bucket_id=str(bucket), claim=claim, release_after=died.release_after)
                held.holder.push(push)
