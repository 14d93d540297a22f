"""Demand → claim → push, for one service on this node.  protocol.md, "ask"

What sessions ask while a claim statement runs waits in the queue, and the next statement takes all of that at once,
in turn between the clients, so that a large ask does not starve a small one.

What is done next follows from two states, and from nothing else.  `PoolView` has the states of the pool and what
changes them, `DemandQueue` those of the clients:

| pool        | some client is `WAITING`           | all clients are set aside |
|-------------|------------------------------------|---------------------------|
| `UNKNOWN`   | claim; if few are left, build too  | wait                      |
| `HAS_READY` | claim                              | wait                      |
| `NEW_ITEMS` | build, then claim                  | wait                      |
| `EMPTY`     | wait                               | wait                      |

To wait is to wait until something is heard, or until the first moment comes at which the pool or a client is to be
looked at again.  Before that, all immediate asks are answered: there is nothing for them.

A client that a claim did not serve has to wait (`BACKING_OFF`), holds what it may (`AT_LIMIT`), has given back all that
is ready (`RETURNED_ALL`), or there was nothing (the pool is `EMPTY`, if nothing can be built).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from time import monotonic

import structlog

from coordinator.errors import Unavailable
from coordinator.flow import pool_view
from coordinator.flow.bucket_builder import BucketBuilder, BuildOutcome, BuildReason, BuildStatus
from coordinator.flow.catalogue import Entry
from coordinator.flow.claimer import Claimer, ImmediateTicket, answers_of
from coordinator.flow.core import Core
from coordinator.flow.delivery import Delivery
from coordinator.flow.demand_queue import SET_ASIDE_AT_MOST, ClientEvent, DemandQueue, Ticket
from coordinator.flow.first_look import AskTicket, FirstLook, FirstLooks
from coordinator.flow.longest_waits import GIVE_WAY_FOR, TurnOfNode
from coordinator.flow.passed_over import PassedOver
from coordinator.flow.pool_view import PoolEvent, PoolState, PoolView
from coordinator.flow.session_registry import Holder
from coordinator.flow.wait_teller import EndOfWait, WaitTeller
from coordinator.model import Claimed, ClientId, ServiceId, SessionId, Wait
from coordinator.observe.histogram import WaitTimes

log = structlog.get_logger()

MOST_DEMANDS_A_CLAIM = 128
"""Demands to a claim statement: what waits while another one runs, so that it is few unless many ask."""

PAUSE_AFTER_FAILURE = 0.5
"""Seconds between tries while the database is away."""

LOOK_AGAIN_SOON = 0.05
"""Seconds after which is looked again for what another builder may have built, or what was heard of meanwhile."""


class Step(Enum):
    """A step of a dispatcher."""

    CLAIM = auto()
    BUILD = auto()
    WAIT = auto()


def next_step(pool: PoolView, queue: DemandQueue) -> Step:
    """Decide what is done next.  See the table above."""
    if pool.state is PoolState.EMPTY or not queue.anyone_waiting():
        return Step.WAIT
    return Step.BUILD if pool.state is PoolState.NEW_ITEMS else Step.CLAIM


class Dispatcher:
    """Hands out buckets of one service to the sessions of this node."""

    def __init__(
        self, service: ServiceId, core: Core, builder: BucketBuilder, delivery: Delivery, waits: WaitTimes
    ) -> None:
        self.service = service
        self.queue = DemandQueue()
        self.pool = PoolView()
        self.idle = asyncio.Event()
        """Set once all that was heard is dealt with."""

        self._database = core.database
        self._catalogue = core.catalogue
        self._state = core.state
        self._lost_track, self._fronts = core.lost_track, core.fronts

        self._builder = builder
        self._delivery = delivery
        self._claimer = Claimer(service, core, self.queue, delivery, waits)
        self.teller = WaitTeller(service, core, self.queue)
        self._passed_over = PassedOver(service, core, self.queue, self._claimer, self.teller)
        self._looks = FirstLooks(service, self.queue, self.pool)
        self._turn_of_node = TurnOfNode(service, self.queue, core.longest_waits)
        self._handed_out = True
        self._budget_spent = False
        """Whether buckets are ready that the service may not hand out now."""
        self._changed = asyncio.Event()
        """Set when the next step may be another than to wait."""
        self._building_ahead: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup

    # What others ask and tell

    def ask(self, holder: Holder, count: int) -> FirstLook:
        """Let a session wait for `count` more buckets; `answered` follows, once it has its answer."""
        look = FirstLook(holder, count)
        if count and not self.queue.anyone_waiting():
            self.pool.on(PoolEvent.ASKED)  # nobody looked at the pool, and what made it empty may be long ago
        now = monotonic()
        for _ in range(count):
            self.queue.add(AskTicket(holder, now, look=look))
        self.teller.begin_answer(holder)
        has_budget = self._catalogue.by_id(self.service).service.settings.has_budget
        self._looks.begin(look, handing_out=self._handing_out(), has_budget=has_budget)
        if self.pool.state is not PoolState.EMPTY:
            self._changed.set()
        return look

    def answered(self, look: FirstLook, wait: Wait | None) -> None:
        """Note that an ask has its answer, which tells this; from now on its buckets are pushed."""
        self._looks.answered(look)
        self.teller.end_answer(look.holder, wait)

    async def ask_now(self, holder: Holder, count: int) -> list[Claimed]:
        """Claim what is at hand, `count` buckets at most; the caller delivers it.

        Raises:
            Unavailable: the database is away.
        """
        if not count:
            return []

        now, loop = monotonic(), asyncio.get_running_loop()
        tickets = [ImmediateTicket(holder, now, immediate=True, answer=loop.create_future()) for _ in range(count)]
        for ticket in tickets:
            self.queue.add(ticket)
        self.pool.asked_at_once(now)
        self._changed.set()

        return await answers_of(tickets)

    def hear(self, event: PoolEvent) -> None:
        """Look again: something has come, or has changed, that may concern all who wait."""
        self.pool.on(event)
        self.queue.something_came()
        self._turn_of_node.something_came()
        self.idle.clear()
        self._changed.set()

    def holds_less(self, client: ClientId) -> None:
        """Note that a client holds a bucket less: it may have been at its limit."""
        self.teller.look(client)
        if self._budget_spent:
            self.hear(PoolEvent.READY_CAME)
        if self.queue.holds_less(client):
            self._changed.set()

    def wait_ended(self, client: ClientId) -> None:
        """Note that a client need not wait any more, or not as long as it was told."""
        self.teller.look(client)
        if self.queue.wait_ended(client):
            self.pool.on(PoolEvent.ASKED)
            self._changed.set()

    def close(self, holders: Mapping[SessionId, Holder]) -> None:
        """Drop all demand: the service was revoked.  `holders` are the sessions of this node."""
        self._answer_immediate()
        for session in self.queue.sessions:
            self.queue.withdraw(session)
            if session in holders:
                self.teller.over(holders[session], "served", "the service was revoked")

    def drop(self, holder: Holder, reason: EndOfWait, text: str) -> None:
        """Let a session wait for nothing more, though it has not said so itself, and tell it."""
        if self.queue.pending(holder.session_id):
            self.queue.withdraw(holder.session_id)
            self.teller.over(holder, reason, text)

    @property
    def claiming(self) -> asyncio.Lock:
        """Held from before a claim statement until what it claimed is in the registry."""
        return self._claimer.claiming

    @property
    def found_empty(self) -> bool:
        """Whether sessions wait, and there was nothing for them."""
        return bool(self.queue) and self.pool.state is PoolState.EMPTY

    async def built_ahead(self) -> None:
        """Wait until the builder has ended, if it was started to fill the pool before it is empty."""
        if self._building_ahead is not None:
            await asyncio.wait([self._building_ahead])

    # The loop

    async def run(self) -> None:
        """Serve who asks, until cancelled."""
        self.queue.put_back(self.queue.in_flight)  # if it ran before
        self._building_ahead = None
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self.teller.run())

            while True:
                try:
                    await self._take_steps()
                except Unavailable:
                    pass
                except Exception:
                    # One bad bucket must not stop a service, let alone the node.
                    log.exception("granting failed", service=self._catalogue.name_of(self.service))
                    self._lost_track.set()
                self.queue.put_back(self.queue.in_flight)
                self._answer_immediate(away=True)
                await asyncio.sleep(PAUSE_AFTER_FAILURE)

    async def _take_steps(self) -> None:
        """Take one step after the other until one fails."""
        while True:
            self._changed.clear()
            now = monotonic()
            self.pool.look_if_due(now)
            if self.queue.look_if_due(now):
                self.pool.on(PoolEvent.ASKED)

            handing_out = self._handing_out()
            if handing_out is not self._handed_out:
                self._handed_out = handing_out
                self.teller.look_at_all()
            step = next_step(self.pool, self.queue) if handing_out else Step.WAIT
            if step is Step.WAIT:
                self._answer_immediate()
                self.idle.set()
                await self._wait(now, handing_out=handing_out)
                continue

            if self._turn_of_node.gives_way(now):
                await asyncio.sleep(GIVE_WAY_FOR)
            entry = self._catalogue.by_id(self.service)  # it may be set otherwise at each step
            if step is Step.BUILD:
                await self._build(entry, BuildReason.NEW_ITEMS)
            else:
                await self._serve(entry)

    def _handing_out(self) -> bool:
        """Tell whether anything is handed out at all; where nobody waits, it is not looked."""
        if not self.queue:
            return True
        return self._catalogue.by_id(self.service).service.state == "active" and not self._state.draining

    async def _wait(self, now: float, *, handing_out: bool) -> None:
        """Wait until something changes, or the first moment comes at which is looked again."""
        moments = []
        if not handing_out:
            moments.append(now + pool_view.LOOK_AT_EMPTY_POOL_AFTER)
        elif self.pool.state is PoolState.EMPTY and self.queue:
            moments.append(self.pool.look_again_at)
        if handing_out and (next_moment := self.queue.next_moment()) is not None:
            moments.append(next_moment)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(moments) - now) if moments else None):
                await self._changed.wait()

    # One claim

    async def _serve(self, entry: Entry) -> None:
        """Claim buckets for those whose turn it is, and see to those that got none."""
        self._answer_immediate(of_set_aside=True)
        times_heard = self.queue.times_heard
        tickets = self._still_wanted(self.queue.take(MOST_DEMANDS_A_CLAIM, monotonic()))
        tickets = self._passed_over.leave_out(entry, tickets)
        if not tickets:
            return

        self._budget_spent = False
        self._turn_of_node.begin_claim()
        outcome = await self._claimer.claim(entry, tickets)
        self._looks.note_left(outcome.left)
        self._turn_of_node.end_claim(served=bool(outcome.served))
        if outcome.took_back:
            self._fronts.forget(self.service)
            self.hear(PoolEvent.READY_CAME)
        if outcome.served and self.pool.build_ahead(outcome.left):
            self._build_ahead(entry)

        unserved = [ticket for ticket in tickets if ticket not in outcome.served]
        if unserved:
            await self._see_to_unserved(entry, unserved, times_heard, left=outcome.left)

    def _still_wanted(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Leave out what nobody waits for any more, or may not be served."""
        wanted = []
        for ticket in tickets:
            if self._delivery.may_hold(ticket.holder, self.service):
                wanted.append(ticket)
            else:
                self._claimer.resolve(ticket, None)
        return wanted

    # Who got nothing

    async def _see_to_unserved(self, entry: Entry, unserved: Sequence[Ticket], times_heard: int, *, left: int) -> None:
        """Build buckets for those that a claim did not serve, or set them aside.

        If something was heard since the claim began (`times_heard`), the pool is not taken for empty, nor if it had
        `left` some buckets: the reason why somebody got none of them has ended since, or others were at work on them.
        """
        sorted_out = await self._passed_over.sort(entry, unserved, left)
        if sorted_out.took_back:
            self._fronts.forget(self.service)
            self.hear(PoolEvent.READY_CAME)
        if sorted_out.budget_spent is not None:
            self.queue.put_back(unserved)
            self._budget_spent = True
            self.pool.found_empty(monotonic(), min(sorted_out.budget_spent, SET_ASIDE_AT_MOST))
            self.teller.found_empty("budget")
            return
        returned_all, others = sorted_out.returned_all, sorted_out.others
        if others and left > 0 and not returned_all:
            for client in others:
                self.queue.set_aside(client, ClientEvent.UNLUCKY, monotonic(), LOOK_AGAIN_SOON)
            others = set()

        outcome = None
        if others and not returned_all and self._building_ahead is not None:
            await asyncio.wait([self._building_ahead])
        elif others or returned_all:
            reason = BuildReason.ONLY_RETURNED_ONES if returned_all else BuildReason.NOTHING_READY
            # An immediate ask is told "nothing" only when there is nothing, not when another builder is busy.
            immediate = any(ticket.immediate for ticket in unserved)
            outcome = await self._build(entry, reason, wait_for_lock=immediate)

        self.queue.put_back(unserved)
        if outcome is None or outcome.buckets:
            return

        now, busy = monotonic(), outcome.status is BuildStatus.BUSY
        heard = self.queue.times_heard != times_heard
        for client in returned_all:
            seconds = LOOK_AGAIN_SOON if busy or heard else SET_ASIDE_AT_MOST
            self.queue.set_aside(client, ClientEvent.ONLY_RETURNED_ONES, now, seconds)
            self.teller.look(client)
        if others:
            self._turn_of_node.found_too_little(heard=heard)
        if others and not heard:
            self.pool.found_empty(now, LOOK_AGAIN_SOON if busy else None)
            self.teller.found_empty("no_items")

    # Building

    async def _build(self, entry: Entry, reason: BuildReason, *, wait_for_lock: bool = False) -> BuildOutcome:
        """Have buckets built, and note what that tells of the pool."""
        self.pool.on(PoolEvent.BUILD_BEGAN)
        outcome = await self._builder.build(entry, reason, wait_for_lock=wait_for_lock)
        if outcome.buckets and not outcome.behind:
            self._fronts.forget(self.service)
        self.pool.built(outcome)
        return outcome

    def _build_ahead(self, entry: Entry) -> None:
        """Have more buckets built while those that are left are handed out."""
        if self._building_ahead is None:
            self._building_ahead = self._group.create_task(self._fill(entry))

    async def _fill(self, entry: Entry) -> None:
        try:
            outcome = await self._build(entry, BuildReason.AHEAD)
            if outcome.buckets:
                self.queue.something_came()
                self._changed.set()
        except Unavailable:
            pass  # whoever asks next finds out
        except Exception:
            log.exception("filling the pool failed", service=entry.service.name)
        finally:
            self._building_ahead = None

    # Answers to immediate asks

    def _answer_immediate(self, *, of_set_aside: bool = False, away: bool = False) -> None:
        """Tell the immediate asks that there is nothing, or that the database is away; the others wait on."""
        self._looks.end(of_set_aside=of_set_aside)
        for ticket in self.queue.take_immediate(of_set_aside=of_set_aside):
            if away:
                self._claimer.fail(ticket, Unavailable("The database cannot be reached."))
            else:
                self._claimer.resolve(ticket, None)
