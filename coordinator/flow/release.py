"""The ways back: buckets that a client held become free for others, or its own again.

protocol.md, "Disconnect", "Recollect"
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

import structlog

from coordinator.errors import BadMessage, StaleClaim, Unavailable, UnknownBucket
from coordinator.flow.catalogue import refuse_strangers
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.intake import bucket_of
from coordinator.flow.session_registry import Holder
from coordinator.flow.signal_types import ClaimsLost, batches
from coordinator.model import BucketId, Claimed, ClaimNumber, ClientId, Freed, ServiceId, SessionId
from coordinator.store import claim_lookup, claims, clients, recollects
from coordinator.store.claims import EndReason
from coordinator.store.pool import STATEMENT_DEADLINE
from coordinator.wire.client import BucketLost, Hold, LostReason, Recollection, Release, Released
from coordinator.wording import counted

log = structlog.get_logger()

RETRY_RELEASE_AFTER = 1.0
"""Seconds between tries while the database is away."""

GATHER_ENDS_FOR = 0.05
"""Seconds for which ended sessions are gathered before that is noted: clients that wait for their buckets go first."""


class Releases:
    """Frees buckets, and gives cut-off ones back."""

    def __init__(self, core: Core, grant: Grant) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._grant = grant
        self._signals = core.signals
        self._boot = core.boot
        self._reconnect_window = core.settings.reconnect_window
        self._recollect_window = core.settings.recollect_window
        self._events = core.events
        self._counters = core.counters
        self._lost_track = core.lost_track

        self._ran_before = False
        self._ended: asyncio.Queue[SessionId] = asyncio.Queue()
        """Sessions whose end is not noted yet."""
        self._moving: set[SessionId] = set()
        """Sessions whose claims are just being released or regranted: they are no orphans, though nobody holds them."""

    # One session

    async def end_session(self, holder: Holder, *, keep: bool, way: EndReason = claims.CUT_OFF) -> None:
        """Free what a session claimed, at once, since its connection has ended; or keep it for its client (`keep`).

        Done before anything else of that client that could depend on it; repeated until the database is back.
        """
        identity = holder.identity
        self._grant.withdraw(holder)
        held = self._registry.leave(holder)
        delivered = [bucket.bucket_id for bucket in held]

        identity.begin_leaving()
        self._moving.add(holder.session_id)
        try:
            while True:
                try:
                    await self._end_session(holder, delivered, keep=keep, way=way)
                    break
                except Unavailable:
                    await asyncio.sleep(RETRY_RELEASE_AFTER)
        finally:
            self._moving.discard(holder.session_id)
            identity.end_leaving()
            self._registry.forget(identity)

        if held:
            kept = "kept for it" if keep else "free for others"
            self._events.emit("disconnect", f"while holding buckets: {len(held)}, {kept}", client=holder.client_id)
            log.info(
                "session ended while holding",
                session=str(holder.session_id),
                client=holder.client_id,
                buckets=len(held),
                kept=keep,
            )

    async def _end_session(self, holder: Holder, delivered: Sequence[BucketId], *, keep: bool, way: EndReason) -> None:
        client, session = holder.client_id, holder.session_id
        async with self._database.connection() as db:
            if keep:
                await recollects.keep_for_reconnect(db, [session], self._reconnect_window)
            else:
                freed = await claims.release_session(db, client, session, way, self._recollect_window, delivered)
                if way is claims.CUT_OFF:
                    for service in {bucket.service_id for bucket in freed if bucket.bucket_id in delivered}:
                        self._counters.disconnected(service)
                        self._counters.look(client, service)
                for bucket in freed:  # another of its sessions may wait here
                    self._grant.lost(client, bucket.service_id)
                self._wake(freed)
        self._ended.put_nowait(session)

    async def _note_ends(self) -> None:
        """Write down which sessions have ended, several at a time."""
        while True:
            ended = [await self._ended.get()]
            await asyncio.sleep(GATHER_ENDS_FOR)
            while not self._ended.empty():
                ended.append(self._ended.get_nowait())

            while True:
                try:
                    async with self._database.connection() as db:
                        await clients.end_sessions(db, ended)
                    break
                except Unavailable:
                    await asyncio.sleep(RETRY_RELEASE_AFTER)
                except Exception:
                    # Only shown: it must not end the node, with which they end at the latest.
                    log.exception("the ends of sessions cannot be noted", sessions=len(ended))
                    break

    async def give_back(self, release: Release, by: Holder) -> Released:
        """Free one bucket that its client returns.

        Raises:
            UnknownBucket, NotOwner, StaleClaim, Unavailable; and what its membership forbids.
        """
        bucket_id, claim = bucket_of(release.bucket_id), ClaimNumber(release.claim)

        async with self._database.connection() as db:
            bucket = await claim_lookup.find_claim(db, bucket_id, claim)
            if bucket is None:
                raise UnknownBucket("There is no such bucket.")
            refuse_strangers(self._catalogue.by_id(bucket.service_id), by.identity, idle_may=True)
            await claim_lookup.check_owner(db, bucket, bucket_id, by.client_id)
            freed = await claims.release_claim(db, bucket_id, claim, claims.RELEASED, self._recollect_window)
        if not freed:
            raise StaleClaim("Your claim of that bucket has ended.")

        self._registry.drop(by.client_id, bucket_id, claim)
        self._grant.lost(by.client_id, bucket.service_id)
        self._counters.given_back(bucket.service_id)
        self._counters.look(by.client_id, bucket.service_id)
        self._events.emit(
            "release",
            f"given back with {counted(freed[0].remaining, 'item')} left",
            client=by.client_id,
            service=self._catalogue.name_of(bucket.service_id),
            bucket=str(bucket_id),
        )
        self._wake(freed)
        return Released(bucket_id=str(bucket_id), remaining=freed[0].remaining)

    # One client, or all of a service

    async def free_client(
        self,
        client: ClientId,
        service: ServiceId | None,
        way: EndReason,
        reason: LostReason,
        spare: Holder | None = None,
        freed: Callable[[], None] = lambda: None,
    ) -> int:
        """Take away all that a client holds, in one service or in all; tells its sessions, but for `spare`.

        `freed` is called when all of it is free, and nobody was told.  Returns how many buckets that was.

        Raises:
            Unavailable: the database is away.
        """
        async with self._database.connection() as db:
            taken = await claims.release_client(db, client, service, way, self._recollect_window)
        freed()
        if way.cost:
            for bucket in taken:
                self._counters.given_back(bucket.service_id)
                self._counters.look(client, bucket.service_id)
        self.tell_lost(taken, reason, spare)
        self._wake(taken)
        return len(taken)

    async def free_service(self, service: ServiceId) -> int:
        """Take away all that is held in one service."""
        async with self._database.connection() as db:
            freed = await claims.release_service(db, service, claims.REVOKED)
        self.tell_lost(freed, "revoked")
        return len(freed)

    async def take(self, bucket_id: BucketId, way: EndReason = claims.TAKEN) -> int:
        """Take one bucket from its holder; returns how many buckets were taken, 0 if nobody holds it.

        Raises:
            UnknownBucket, Unavailable
        """
        async with self._database.connection() as db:
            bucket = await claim_lookup.find_claim(db, bucket_id, ClaimNumber(0))
            if bucket is None:
                raise UnknownBucket("There is no such bucket.")
            freed = await claims.release_claim(db, bucket_id, bucket.current, way, self._recollect_window)
        self.tell_lost(freed, "released")
        self._wake(freed)
        return len(freed)

    async def expire(self, service: ServiceId, most: float, spared: Callable[[], Sequence[BucketId]]) -> None:
        """End the claims of this node's sessions that have lasted for more than `most` seconds, whatever was settled.

        Raises:
            Unavailable: the database is away.
        """
        for held in self._registry.begun_before(service, monotonic() - most):
            if held.bucket_id in spared():
                continue
            async with self._database.connection() as db:
                freed = await claims.release_claim(
                    db, held.bucket_id, held.claim, claims.EXPIRED, self._recollect_window
                )
            for bucket in freed:
                self._counters.dead(service)
                self._counters.look(bucket.client_id, service)
            self.tell_lost(freed, "expired")
            self._wake(freed)

    def tell_lost(self, freed: Sequence[Freed], reason: LostReason, spare: Holder | None = None) -> None:
        """Tell the holders, on whatever node, that these claims are over."""
        for bucket in freed:
            self._events.emit(
                "lost",
                f"taken away: {reason}",
                client=bucket.client_id,
                service=self._catalogue.name_of(bucket.service_id),
                bucket=str(bucket.bucket_id),
            )

        lost = [(bucket.client_id, bucket.bucket_id, bucket.claim) for bucket in freed]
        for part in batches(lost):
            self._signals.tell(ClaimsLost(part, reason, None if spare is None else spare.session_id))

    def on_lost(self, lost: ClaimsLost) -> None:
        """Tell the sessions of this node which of their claims somebody took away."""
        for client, bucket, claim in lost.claims:
            held = self._registry.drop(client, bucket, claim)
            if held is not None:
                self._grant.lost(client, held.service_id)
            if held is not None and held.holder.session_id != lost.spare:
                held.holder.push(BucketLost(bucket_id=str(bucket), claim=claim, reason=lost.reason))

    def wake(self, services: Iterable[ServiceId]) -> None:
        """Tell all nodes that something came back to these services."""
        for service in set(services):
            self._signals.work(service)

    def _wake(self, freed: Sequence[Freed]) -> None:
        self.wake(bucket.service_id for bucket in freed)

    # Back to its client

    async def recollect(self, by: Holder, holds: Sequence[Hold]) -> tuple[Recollection, list[Claimed]]:
        """Give a client back those of its cut-off buckets that nobody has claimed since.

        Returns what to answer, and the claims; the caller pushes them behind its answer.

        Raises:
            Unavailable: the database is away.
        """
        await by.identity.settled_down()
        named = [bucket for hold in holds if (bucket := _bucket_named(hold)) is not None]
        held = {bucket.bucket_id for bucket in by.identity.held.values() if bucket.holder is by}
        regranted: list[Claimed] = []
        if by.identity.registered and by.identity.deactivated is None:
            regranted = await self._regrant(by, named)

        back = {claimed.bucket_id for claimed in regranted} | held
        answer = Recollection(
            regranted=[str(claimed.bucket_id) for claimed in regranted],
            dropped=[hold.bucket_id for hold in holds if _bucket_named(hold) not in back],
        )
        return answer, regranted

    async def _regrant(self, by: Holder, named: Sequence[BucketId]) -> list[Claimed]:
        """Claim for a session what its client may have back, and note it as held; returns the claims."""
        regranted: list[Claimed] = []
        self._moving.add(by.session_id)

        try:
            async with self._database.transaction() as db:
                found = await recollects.recollect(
                    db, by.client_id, by.session_id, named, self._boot, self._recollect_window
                )

            for regrant in found:
                claimed = regrant.claimed
                if regrant.taken_from is not None:
                    self._take_over(by, claimed.bucket_id, regrant.former)
                if self._grant.take_in(claimed, by):
                    regranted.append(claimed)
                    self._grant.wait_ended(by.client_id, claimed.service_id)
                else:
                    self._lost_track.set()
        except BaseException:
            self._lost_track.set()
            raise
        finally:
            self._moving.discard(by.session_id)
        return regranted

    def _take_over(self, by: Holder, bucket: BucketId, former: ClaimNumber) -> None:
        """Tell the other session of the client, on whatever node, that it has lost a bucket to this one."""
        self._signals.tell(ClaimsLost([(by.client_id, bucket, former)], "released", by.session_id))

    # When it is not known what the database did

    async def run(self) -> None:
        """Note the ends of sessions, and resolve doubts; until cancelled."""
        if self._ran_before:
            self._lost_track.set()  # what was in doubt when it failed is in doubt still
        self._ran_before = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._note_ends())
            group.create_task(self._resolve_doubts())

    async def _resolve_doubts(self) -> None:
        """Free claims of this node's start that no session holds, whenever there is doubt."""
        while True:
            await self._lost_track.wait()
            self._lost_track.clear()
            try:
                await self._reconcile()
                # A statement that was given up may still have been carried out by the server until now.
                await asyncio.sleep(STATEMENT_DEADLINE)
                await self._reconcile()
            except Unavailable:
                self._lost_track.set()
                await asyncio.sleep(RETRY_RELEASE_AFTER)

    async def _reconcile(self) -> None:
        """Free claims of this node's start that no session holds."""
        begun = monotonic()
        async with self._database.connection() as db:
            believed = await claim_lookup.claims_of_boot(db, self._boot)

        # A claim that began before that look is in the registry once no dispatcher claims for a moment.
        await self._grant.all_delivered()
        held = {(bucket.bucket_id, bucket.claim) for bucket in self._registry.all_held()}
        orphans = [
            (bucket, claim)
            for bucket, claim, session in believed
            if (bucket, claim) not in held and session not in self._moving
        ]

        for bucket, claim in orphans:
            async with self._database.connection() as db:
                freed = await claims.release_claim(db, bucket, claim, claims.UNDELIVERED, 0.0)
            self._wake(freed)
        if orphans:
            seconds = round(monotonic() - begun, 3)
            log.info("freed claims that no session holds", buckets=len(orphans), seconds=seconds)


def _bucket_named(hold: Hold) -> BucketId | None:
    try:
        return bucket_of(hold.bucket_id)
    except UnknownBucket:
        return None


def refuse_repeated(holds: Sequence[Hold]) -> None:
    """Refuse holds that name a bucket twice.

    Raises: BadMessage
    """
    if len({hold.bucket_id.lower() for hold in holds}) < len(holds):
        raise BadMessage("A bucket stands twice among `holds`.", detail={"path": "$.holds"})
