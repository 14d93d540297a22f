"""From tickets to buckets in the hands of sessions, by one claim statement.  protocol.md, "ask" """

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from coordinator.errors import Unavailable
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.delivery import Delivery
from coordinator.flow.demand_queue import DemandQueue, Ticket
from coordinator.flow.first_look import AskTicket
from coordinator.model import Claimed, Demand, ServiceId, ServiceSettings, SessionId
from coordinator.observe.histogram import WaitTimes
from coordinator.store import claims
from coordinator.store.fronts import POOL_START


@dataclass(slots=True, eq=False)
class ImmediateTicket(Ticket):
    """A ticket of an ask that does not wait; it is answered with None if there is nothing."""

    answer: asyncio.Future[Claimed | None] = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class ClaimOutcome:
    """The tickets that had a bucket, and whether one of those went back, since its session had ended."""

    served: set[Ticket]
    took_back: bool
    left: int = 0
    """Ready buckets that remain, as far as was looked."""


class Claimer:
    """Claims buckets of one service for tickets of its queue, and hands them out."""

    def __init__(
        self, service: ServiceId, core: Core, queue: DemandQueue, delivery: Delivery, waits: WaitTimes
    ) -> None:
        self.claiming = asyncio.Lock()
        """Held from before a claim statement until what it claimed is in the registry."""
        self._service = service
        self._database = core.database
        self._boot = core.boot
        self._lost_track = core.lost_track
        self._fronts = core.fronts
        self._queue = queue
        self._delivery = delivery
        self._waits = waits

    async def claim(self, entry: Entry, tickets: Sequence[Ticket]) -> ClaimOutcome:
        """Claim for many tickets in one statement.

        Raises:
            Unavailable: it is not known what was claimed; the tickets are in flight still.
        """
        demands, settings = [ticket.demand for ticket in tickets], entry.service.settings
        async with self.claiming:
            try:
                handout = await self._claim_front(demands, settings)
            except BaseException:
                self._lost_track.set()
                raise
            return await self._hand_out(tickets, handout.claimed, handout.left)

    async def _claim_front(self, demands: Sequence[Demand], settings: ServiceSettings) -> claims.ClaimedBuckets:
        """Claim where the pool begins; if little is ready from there on, from its very beginning."""
        fronts, service = self._fronts, self._service
        mark, start = fronts.mark(service), fronts.start(service)

        async with self._database.connection() as db:
            handout = await claims.claim(db, service, demands, self._boot, settings, start)
            fronts.found(service, handout.first, mark, whole=start == POOL_START)
            if start == POOL_START or handout.seen >= len(demands):
                return handout

            fronts.forget(service)
            left = list(demands)
            for claimed in handout.claimed:
                left.remove(next(demand for demand in left if demand.session_id == claimed.session_id))
            more = await claims.claim(db, service, left, self._boot, settings)
            return replace(more, claimed=handout.claimed + more.claimed)

    async def claim_unblocked(self, entry: Entry, ticket: Ticket) -> ClaimOutcome:
        """Claim a bucket that the client did not give back lately.

        Raises:
            Unavailable: it is not known whether one was claimed; the ticket is in flight still.
        """
        settings = entry.service.settings
        async with self.claiming:
            try:
                async with self._database.connection() as db:
                    claimed = await claims.claim_unblocked(db, self._service, ticket.demand, self._boot, settings)
            except BaseException:
                self._lost_track.set()
                raise
            return await self._hand_out([ticket], [] if claimed is None else [claimed])

    async def _hand_out(self, tickets: Sequence[Ticket], claimed: Sequence[Claimed], left: int = 0) -> ClaimOutcome:
        """Give each claim to a ticket of its session."""
        by_session: dict[SessionId, deque[Ticket]] = {}
        for ticket in tickets:
            by_session.setdefault(ticket.holder.session_id, deque()).append(ticket)

        served: set[Ticket] = set()
        orphans: list[tuple[Ticket, Claimed]] = []
        for bucket in claimed:
            ticket = by_session[bucket.session_id].popleft()
            served.add(ticket)
            if not _still_waits(ticket) or not self._delivery.take_in(bucket, ticket.holder):
                orphans.append((ticket, bucket))
                continue
            self.resolve(ticket, bucket)
            self._waits.bucket.add(self._service, monotonic() - ticket.asked_at)
            if isinstance(ticket, AskTicket) and ticket.look.gathers:
                ticket.look.gather(bucket)
            elif not ticket.immediate:
                self._delivery.push(bucket, ticket.holder)

        took_back = await self._take_back([bucket for _, bucket in orphans])
        for ticket, _ in orphans:  # only now, so that the end of its session finds nothing to charge for
            self.resolve(ticket, None)
        return ClaimOutcome(served, took_back, left)

    async def _take_back(self, orphans: Sequence[Claimed]) -> bool:
        """Free claims whose sessions had ended, which costs nothing; returns whether there were any."""
        freed = False
        try:
            for claimed in orphans:
                async with self._database.connection() as db:
                    await claims.release_claim(db, claimed.bucket_id, claimed.claim, claims.UNDELIVERED, 0.0)
                freed = True
        except Unavailable:
            self._lost_track.set()
        return freed

    def resolve(self, ticket: Ticket, claimed: Claimed | None) -> None:
        """End a ticket, with a bucket or without; an immediate ask is answered."""
        self._queue.done(ticket)
        if isinstance(ticket, ImmediateTicket) and not ticket.answer.done():
            ticket.answer.set_result(claimed)

    def fail(self, ticket: Ticket, failure: Exception) -> None:
        """End a ticket since its claim has failed; an immediate ask is told so."""
        self._queue.done(ticket)
        if isinstance(ticket, ImmediateTicket) and not ticket.answer.done():
            ticket.answer.set_exception(failure)


async def answers_of(tickets: Sequence[ImmediateTicket]) -> list[Claimed]:
    """Wait for the answers of immediate asks; returns what was claimed.

    Raises:
        Unavailable: the database is away, and nothing was claimed.
    """
    answers = [ticket.answer for ticket in tickets]
    try:
        await asyncio.wait(answers)
    finally:
        for answer in answers:
            answer.cancel()  # that which has not come, and for which nobody waits any more

    found = [claimed for answer in answers if answer.exception() is None and (claimed := answer.result())]
    failures = [failure for answer in answers if (failure := answer.exception()) is not None]
    if failures and not found:
        raise failures[0]
    return found


def _still_waits(ticket: Ticket) -> bool:
    return not ticket.withdrawn and not (isinstance(ticket, ImmediateTicket) and ticket.answer.done())
