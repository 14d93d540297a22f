"""The ways back: what a client held becomes free for others.  protocol.md, "Disconnect", "Recollect" """

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any
from uuid import UUID

import structlog

from coordinator.errors import StaleClaim, Unavailable, UnknownBucket
from coordinator.flow.catalogue import refuse_strangers
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.intake import bucket_of
from coordinator.flow.session_registry import Holder
from coordinator.flow.signals import batches
from coordinator.model import BucketId, Claimed, ClaimNumber, ClientId, Freed, ServiceId, SessionId
from coordinator.store import claim_lookup, claims, clients, recollects
from coordinator.store.claims import EndReason
from coordinator.store.pool import STATEMENT_DEADLINE
from coordinator.wire.client import BucketLost, Hold, Recollection, Release, Released

log = structlog.get_logger()

RETRY = 1.0
"""Seconds between tries while the database is away."""

GATHER = 0.05
"""Seconds for which ended sessions are gathered before that is noted: whoever waits for their buckets goes first."""


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
        self._over: asyncio.Queue[SessionId] = asyncio.Queue()
        """Ended sessions, until that is noted."""
        self._moving: set[SessionId] = set()
        """Sessions whose claims are just being released or regranted: what is not in the registry is no orphan."""

    # One session

    async def end_session(self, holder: Holder, *, keep: bool, way: EndReason = claims.CUT_OFF) -> None:
        """A connection has ended: free what it claimed, at once; or keep it for its client, if the node drains.

        Done before anything else of that client that could depend on it; repeated until the database is back.
        """
        identity = holder.identity
        self._grant.withdraw(holder)
        held = self._registry.leave(holder)
        identity.begin_leaving()
        self._moving.add(holder.session_id)
        try:
            while True:
                try:
                    await self._end_session(holder, [one.bucket_id for one in held], keep=keep, way=way)
                    break
                except Unavailable:
                    await asyncio.sleep(RETRY)
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
                await claims.keep_for_reconnect(db, [session], self._reconnect_window)
            else:
                freed = await claims.release_session(db, client, session, way, self._recollect_window, delivered)
                if way is claims.CUT_OFF:
                    for service in {one.service_id for one in freed if one.bucket_id in delivered}:
                        self._counters.disconnected(service)
                        self._counters.look(client, service)
                self._wake(freed)
        self._over.put_nowait(session)

    async def _note_ends(self) -> None:
        while True:
            ended = [await self._over.get()]
            await asyncio.sleep(GATHER)
            while not self._over.empty():
                ended.append(self._over.get_nowait())
            while True:
                try:
                    async with self._database.connection() as db:
                        await clients.end_sessions(db, ended)
                    break
                except Unavailable:
                    await asyncio.sleep(RETRY)
                except Exception:
                    # Only shown: it must not end the node, with which they end at the latest.
                    log.exception("the ends of sessions cannot be noted", sessions=len(ended))
                    break

    async def give_back(self, release: Release, by: Holder) -> Released:
        """A client returns one bucket.

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
        self._counters.given_back(bucket.service_id)
        self._counters.look(by.client_id, bucket.service_id)
        self._events.emit(
            "release",
            f"given back with {freed[0].remaining} items left",
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
        reason: str,
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
        """Take one bucket from whoever holds it; 0 if nobody does."""
        async with self._database.connection() as db:
            bucket = await claim_lookup.find_claim(db, bucket_id, ClaimNumber(0))
            if bucket is None:
                raise UnknownBucket("There is no such bucket.")
            freed = await claims.release_claim(db, bucket_id, bucket.current, way, self._recollect_window)
        self.tell_lost(freed, "released")
        self._wake(freed)
        return len(freed)

    def tell_lost(self, freed: Sequence[Freed], reason: str, spare: Holder | None = None) -> None:
        """Tell the holders, on whatever node, that these claims are over."""
        for one in freed:
            self._events.emit(
                "lost",
                f"taken away: {reason}",
                client=one.client_id,
                service=self._catalogue.name_of(one.service_id),
                bucket=str(one.bucket_id),
            )
        told = [[one.client_id, str(one.bucket_id), one.claim] for one in freed]
        for part in batches(told):
            spared = None if spare is None else str(spare.session_id)
            self._signals.tell("lost", claims=part, reason=reason, spare=spared)

    def on_lost(self, signal: dict[str, Any]) -> None:
        """Somebody took claims away; those of this node's sessions are told."""
        for client, bucket, claim in signal["claims"]:
            held = self._registry.drop(ClientId(client), BucketId(UUID(bucket)), ClaimNumber(claim))
            if held is not None and str(held.holder.session_id) != signal.get("spare"):
                held.holder.push(BucketLost(bucket_id=bucket, claim=claim, reason=signal["reason"]))

    def wake(self, services: Iterable[ServiceId]) -> None:
        """Something came back to these services."""
        for service in set(services):
            self._signals.work(service)

    def _wake(self, freed: Sequence[Freed]) -> None:
        self.wake(one.service_id for one in freed)

    # Back to its client

    async def recollect(self, by: Holder, holds: Sequence[Hold]) -> tuple[Recollection, list[Claimed]]:
        """Give a client back those of its cut-off buckets that nobody has claimed since.

        Returns what to answer, and the claims; the caller pushes them behind its answer.

        Raises:
            Unavailable: the database is away.
        """
        await by.identity.settled_down()
        named: list[BucketId] = []
        for hold in holds:
            try:
                named.append(bucket_of(hold.bucket_id))
            except UnknownBucket:
                continue
        regranted: list[Claimed] = []
        mine = {held.bucket_id for held in by.identity.held.values() if held.holder is by}
        if by.identity.registered and by.identity.deactivated is None:
            self._moving.add(by.session_id)
            try:
                async with self._database.transaction() as db:
                    found = await recollects.recollect(
                        db, by.client_id, by.session_id, named, self._boot, self._recollect_window
                    )
            except BaseException:
                self._lost_track.set()
                raise
            else:
                for one in found:
                    if one.taken_from is not None:
                        self._take_over(by, one.claimed.bucket_id, one.former)
                    if self._grant.take_in(one.claimed, by):
                        regranted.append(one.claimed)
                        self._grant.unpark(by.client_id, one.claimed.service_id)
                    else:
                        self._lost_track.set()
            finally:
                self._moving.discard(by.session_id)
        back = {one.bucket_id for one in regranted} | mine
        answer = Recollection(
            regranted=[str(one.bucket_id) for one in regranted],
            dropped=[hold.bucket_id for hold in holds if _id(hold.bucket_id) not in back],
        )
        return answer, regranted

    def _take_over(self, by: Holder, bucket: BucketId, former: ClaimNumber) -> None:
        self._signals.tell(
            "lost",
            claims=[[by.client_id, str(bucket), former]],
            reason="released",
            spare=str(by.session_id),
        )

    # When it is not known what the database did

    async def run(self) -> None:
        """Note the ends of sessions, and resolve doubts; until cancelled."""
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
                await asyncio.sleep(RETRY)

    async def _reconcile(self) -> None:
        begun = monotonic()
        async with self._database.connection() as db:
            believed = await claims.claims_of_boot(db, self._boot)
        # What was claimed before that look is in the registry once the lines are idle for a moment.
        await self._grant.all_delivered()
        held = {(one.bucket_id, one.claim) for one in self._registry.all_held()}
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


def _id(name: str) -> BucketId | None:
    try:
        return bucket_of(name)
    except UnknownBucket:
        return None
