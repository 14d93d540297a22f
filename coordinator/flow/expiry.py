"""Expire what has reached its time: claims, dead buckets, idle clients, old results.  protocol.md, "Life of a bucket"

Any node may do each step, and each is safe to repeat; a crash between two steps loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
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
from coordinator.flow.round_steps import RoundSteps, Step
from coordinator.flow.signal_types import ClaimsDied, ClientChanged, batches
from coordinator.model import ClientId, ServiceId
from coordinator.store import activity, claims, clients, overdue, rechecks
from coordinator.store import building as store
from coordinator.store.due import DueWork, look
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
        self._steps = RoundSteps()
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
                # Whatever is wrong with one service or step, the next round must come.
                self._activity.fault("node.fault", "clock", repr(failure))
                log.exception("a step of the clock failed")
            await asyncio.sleep(max(0.05, EXPIRY_INTERVAL - (loop.time() - begun)))

    async def tick(self) -> None:
        """Carry out all that is due now; one step that fails stops none of the others.

        Raises:
            Unavailable: the database is away; the next round does the rest.
            Exception: as `RoundSteps.run`.
        """
        begun = monotonic()
        async with self._core.database.connection() as db:
            services = [entry.service for entry in self._core.catalogue.all()]
            due = await look(db, services, [self._core.fronts.known(service.service_id) for service in services])
        if due:
            self._tell_missed(next(iter(due.values())))
        blames = not self._delays.hold_up(monotonic() - begun)
        await self._steps.run(self._steps_of(due, blames=blames))

    def _steps_of(self, due: Mapping[ServiceId, DueWork], *, blames: bool) -> Iterator[tuple[str, Step]]:
        """Yield the steps of one round; `blames`: what clients held for too long may be taken from them."""
        entries = [entry for entry in self._core.catalogue.all() if entry.service.service_id in due]
        for entry in entries:
            name, of_service = entry.service.name, due[entry.service.service_id]
            if blames and (of_service.dead or of_service.over):
                yield f"dead buckets of {name}", partial(self._expire_buckets, entry, of_service)
            waiting = self._grant.waiting_clients(entry.service.service_id)
            if waiting or of_service.idle:
                yield f"idle clients of {name}", partial(self._expire_memberships, entry, waiting, of_service)

        if any(of_service.kept for of_service in due.values()):
            yield "kept buckets", self._release_kept
        if any(of_service.done for of_service in due.values()):
            yield "done buckets", self._retire
        for entry in self._core.catalogue.all() if blames else ():
            service, most = entry.service.service_id, entry.service.settings.max_claim_time
            yield (
                f"old claims of {entry.service.name}",
                partial(self._releases.expire, service, most, self._delays.spared),
            )

        for entry in self._core.catalogue.all():
            after = entry.service.settings.recheck_after
            if after is not None and entry.service.state == "active":
                yield f"old results of {entry.service.name}", partial(self._recheck, entry.service.service_id, after)
        for entry in entries:
            if due[entry.service.service_id].broken:
                yield (
                    f"failed buckets of {entry.service.name}",
                    partial(self.splitter.split_due, entry.service.service_id),
                )
        yield "health", self._health_monitor.look
        for entry in entries:
            if entry.service.state == "active" and due[entry.service.service_id].low:
                yield f"new buckets of {entry.service.name}", partial(self._refill, entry)

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

    async def _release_kept(self) -> None:
        """Free what was kept for clients that did not come back."""
        async with self._core.database.connection() as db:
            kept = await claims.release_kept(db)
        self._releases.wake(bucket.service_id for bucket in kept)

    async def _retire(self) -> None:
        """Retire the open buckets in which nothing is left to settle."""
        async with self._core.database.connection() as db:
            await store.retire(db)

    async def _expire_buckets(self, entry: Entry, due: DueWork) -> None:
        """Mark buckets without a result for `dead_after` as dead, and release those dead for `release_after`."""
        settings, service = entry.service.settings, entry.service.service_id
        boot, spared = self._core.boot, self._delays.spared()
        async with self._core.database.connection() as db:
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
            async with self._core.database.connection() as db:
                freed = await overdue.release_dead(db, service, settings.release_after, window, boot, spared)
        for _ in freed:
            self._core.counters.dead(service)
        self._releases.tell_lost(freed, "released")
        self._releases.wake(bucket.service_id for bucket in freed)

    async def _expire_memberships(self, entry: Entry, waiting: Sequence[ClientId], due: DueWork) -> None:
        """Make clients inactive that have not worked for `idle_after`; a client that waits for work is not idle."""
        settings, service = entry.service.settings, entry.service.service_id
        async with self._core.database.connection() as db:
            if waiting:
                await clients.touch(db, service, waiting, settings.idle_after)

            idle = await clients.make_idle(db, service, settings.idle_after, waiting) if due.idle else []
            if idle:
                await activity.note_all(db, self._core.actor, "client.idle", idle, entry.service.name)
        for client in idle:
            self._core.signals.tell(ClientChanged(client))

    async def _recheck(self, service: ServiceId, after: float) -> None:
        """Put items back into the queue whose newest result is older than `recheck_after`."""
        async with self._core.database.transaction() as db:
            due = await rechecks.recheck(db, service, after) if await store.try_lock(db, service) else 0
        if due:
            self._core.signals.work(service)

    async def _refill(self, entry: Entry) -> None:
        """Build buckets for a service that has too few ready."""
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
