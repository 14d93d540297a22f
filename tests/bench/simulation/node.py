"""One node: the queue of who asks, the group commit, and the look at the clock, as `flow` does them.

The queue, its turns and the states of the pool are the project's own; the steps around them, which wait for the
database, are played.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast
from uuid import UUID

from coordinator.flow.bucket_builder import BuildOutcome, BuildReason, BuildStatus, pool_target
from coordinator.flow.commits import COMMITS_AT_ONCE, MOST_SUBMITS_A_COMMIT
from coordinator.flow.demand_queue import ClientEvent, DemandQueue, Ticket
from coordinator.flow.dispatcher import MOST_DEMANDS_A_CLAIM, Step, next_step
from coordinator.flow.expiry import TICK
from coordinator.flow.health_monitor import COMPARE
from coordinator.flow.lease import RENEW_EVERY
from coordinator.flow.ready_pool import PoolEvent, PoolState, ReadyPool
from coordinator.flow.session_registry import Holder
from coordinator.flow.signals import COALESCE
from coordinator.model import ClientId, SessionId
from coordinator.observe.recorder import MOST_EVENTS
from coordinator.store.claims import CUT_OFF, FRONT, UNDELIVERED
from tests.bench.simulation.member import Demand, Outcome, Submit
from tests.bench.simulation.queue import Bucket

if TYPE_CHECKING:
    from tests.bench.simulation.day import Day
    from tests.bench.simulation.volunteer import Volunteer


HISTORY_STEPS = 3
"""The second, the minute and the hour."""


class Session:
    """A connection of a volunteer to a node; a `Holder` as far as the queue looks at it."""

    __slots__ = ("alive", "asked_at", "client_id", "node", "session_id", "volunteer")

    def __init__(self, volunteer: Volunteer, node: Node, number: int) -> None:
        self.volunteer = volunteer
        self.node = node
        self.session_id = SessionId(UUID(int=number))
        self.client_id = ClientId(volunteer.member.client_id)
        self.alive = True
        self.asked_at: deque[float] = deque()


class Node:
    """A node of the day."""

    def __init__(self, day: Day, number: int) -> None:
        self.day = day
        self.alive = True
        self.sessions: dict[Session, None] = {}
        self._queue = DemandQueue()
        self._pool = ReadyPool()
        self._serving = False
        self._look_at: float | None = None
        self._building_ahead = False
        self._signal_due = False
        self._submits: deque[tuple[Submit, Session]] = deque()
        self._free_workers = COMMITS_AT_ONCE
        self._worked: set[ClientId] = set()
        self._seen: set[ClientId] = set()
        self._told = 0
        day.clock.after(TICK * number / day.scenario.nodes, self._tick)
        day.clock.after(1.0 + number / day.scenario.nodes, self._record)
        day.clock.after(COMPARE + number / day.scenario.nodes, self._compare)
        day.clock.after(RENEW_EVERY * number / day.scenario.nodes, self._renew)

    # Granting: flow/dispatcher.py

    def ask(self, session: Session, count: int) -> None:
        """A session asks; with other nodes about, what its client holds is asked of the database first."""
        costs = self.day.costs
        wait = 0.0
        if self.day.scenario.nodes > 1:
            self.day.store.ledger.note("small", 1)
            wait = costs.small_ms / 1000
        session.asked_at.extend([self.day.clock.now] * count)
        self.day.clock.after(wait, self._enter, session, count)

    def _enter(self, session: Session, count: int) -> None:
        if not (session.alive and self.alive):
            return
        if not self._queue.anyone_waiting():
            self._pool.on(PoolEvent.ASKED)
        for _ in range(count):
            self._queue.add(Ticket(cast(Holder, session), self.day.clock.now))
        if self._pool.state is not PoolState.EMPTY:
            self._wake()

    def work(self) -> None:
        """There may be work: here at once, and at the other nodes soon."""
        self.wake()
        if self.day.scenario.nodes > 1 and not self._signal_due:
            self._signal_due = True
            self.day.clock.after(COALESCE, self._signal)

    def _signal(self) -> None:
        self._signal_due = False
        if self.alive:
            self.day.store.ledger.note("small", 1)
            for node in self.day.nodes:
                if node is not self and node.alive:
                    node.wake()

    def wake(self) -> None:
        """There may be work."""
        self._pool.on(PoolEvent.READY_CAME)
        self._queue.something_came()
        self._wake()

    def _wake(self) -> None:
        if not self._serving:
            self._serve()

    def _serve(self) -> None:
        """The next claim statement, if there is one to make."""
        self._serving = False
        now = self.day.clock.now
        self._pool.look_if_due(now)
        if self._queue.look_if_due(now):
            self._pool.on(PoolEvent.ASKED)

        tickets: list[Ticket] = []
        while self.alive and not tickets and next_step(self._pool, self._queue) is not Step.WAIT:
            for ticket in self._queue.take(MOST_DEMANDS_A_CLAIM):
                if ticket.holder.alive:
                    tickets.append(ticket)
                else:
                    self._queue.done(ticket)
        if not tickets:
            self._wait()
            return

        self._serving = True
        demands = [Demand(_session(ticket).volunteer.member, ticket.holder) for ticket in tickets]
        served = self.day.store.claim(demands)
        count = len(served) - served.count(None)
        self.day.clock.after(
            self.day.costs.claim_seconds(count, self.day.store.ready.size), self._hand_out, tickets, served
        )
        left = min(self.day.store.ready.size, FRONT)
        if count and self._pool.build_ahead(left) and not self._building_ahead:
            self._building_ahead = True
            outcome = self._build(BuildReason.AHEAD)
            self.day.clock.after(self.day.costs.make_seconds(outcome.buckets), self._built_ahead, outcome)

    def _build(self, reason: BuildReason) -> BuildOutcome:
        """A run of the builder; its buckets are there when it begins."""
        store = self.day.store
        self._pool.on(PoolEvent.BUILD_BEGAN)
        drained = store.waiting.items < store.settings.bucket_size
        built, target = store.make(reason), pool_target(store.members, store.settings)
        if built:
            status = BuildStatus.ALL_BUILT if drained else BuildStatus.BUILT
        else:
            status = BuildStatus.POOL_FULL if store.ready.size >= target else BuildStatus.QUEUE_EMPTY
        outcome = BuildOutcome(status, built, target)
        self._pool.built(outcome)
        return outcome

    def _built_ahead(self, outcome: BuildOutcome) -> None:
        self._building_ahead = False
        if outcome.buckets:
            self._queue.something_came()

    def _wait(self) -> None:
        """Look again at the first moment at which somebody is to be looked at."""
        moments = [] if (moment := self._queue.next_moment()) is None else [moment]
        if self._pool.state is PoolState.EMPTY and self._queue:
            moments.append(self._pool.look_again_at)
        if moments and self.alive and (self._look_at is None or min(moments) < self._look_at):
            self._look_at = min(moments)
            self.day.clock.after(max(0.0, self._look_at - self.day.clock.now), self._look, self._look_at)

    def _look(self, moment: float) -> None:
        if self._look_at == moment:
            self._look_at = None
            self._wake()

    def _hand_out(self, tickets: Sequence[Ticket], served: Sequence[Bucket | None]) -> None:
        left = []
        for ticket, bucket in zip(tickets, served, strict=True):
            if bucket is None:
                left.append(ticket)
            else:
                self._deliver(ticket, bucket)
        if left and self.alive:
            self.day.clock.after(self._see_to_unserved(left), self._serve)
        else:
            self._serve()

    def _deliver(self, ticket: Ticket, bucket: Bucket) -> None:
        session = _session(ticket)
        self._queue.done(ticket)
        if not self.alive:
            return
        if not session.alive or ticket.withdrawn:
            self.day.store.release_claim(bucket, bucket.claim, UNDELIVERED)
            self.work()
            return
        self._worked.add(session.client_id)
        self.day.asked(self.day.clock.now - session.asked_at.popleft())
        session.volunteer.granted(session, bucket)

    def _see_to_unserved(self, unserved: Sequence[Ticket]) -> float:
        """Build buckets for those that a claim did not serve, or set them aside; returns the seconds that it takes."""
        store, costs, now = self.day.store, self.day.costs, self.day.clock.now
        seconds = costs.small_ms / 1000
        by_client = {ticket.holder.client_id: ticket for ticket in unserved}
        members = [_session(ticket).volunteer.member for ticket in by_client.values()]
        reasons = dict(zip(by_client, store.waits(members), strict=True))
        others = False
        returned_all: set[ClientId] = set()
        for ticket in unserved:
            client = ticket.holder.client_id
            wait, refuses = reasons[client]
            if wait is not None:
                self._queue.set_aside(client, ClientEvent.MUST_WAIT, now, wait)
            elif refuses:
                seconds += costs.claim_seconds(1, store.ready.size)
                bucket = None
                if client not in returned_all:
                    bucket = store.claim_choosy(Demand(_session(ticket).volunteer.member, ticket.holder))
                if bucket is None:
                    returned_all.add(client)
                else:
                    self._deliver(ticket, bucket)
            else:
                others = True

        built = None
        if others or returned_all:
            built = self._build(BuildReason.ONLY_RETURNED_ONES if returned_all else BuildReason.NOTHING_READY).buckets
            seconds += costs.make_seconds(built)
        self._queue.put_back(unserved)
        if built == 0:
            for client in returned_all:
                self._queue.set_aside(client, ClientEvent.ONLY_RETURNED_ONES, now)
            if others:
                self._pool.found_empty(now)
        return seconds

    def wait_ended(self, client: ClientId) -> None:
        """A client need not wait any more."""
        if self._queue.wait_ended(client):
            self._pool.on(PoolEvent.ASKED)
            self._wake()

    # Group commit: flow/commits.py

    def submit(self, session: Session, submit: Submit) -> None:
        """A submit waits for the next transaction."""
        self._submits.append((submit, session))
        self._commit()

    def _commit(self) -> None:
        if not self._submits or not self._free_workers or not self.alive:
            return
        batch: list[tuple[Submit, Session]] = []
        later: list[tuple[Submit, Session]] = []
        buckets = set()
        while self._submits and len(batch) < MOST_SUBMITS_A_COMMIT:
            one = self._submits.popleft()
            (later if one[0].bucket in buckets else batch).append(one)
            buckets.add(one[0].bucket)
        self._submits.extendleft(reversed(later))
        self._free_workers -= 1
        outcomes = self.day.store.settle([submit for submit, _ in batch])
        seconds = self.day.costs.submit_seconds(len(batch), sum(submit.items for submit, _ in batch))
        self.day.clock.after(seconds, self._committed, batch, outcomes)

    def _committed(self, batch: Sequence[tuple[Submit, Session]], outcomes: Sequence[Outcome | None]) -> None:
        self._free_workers += 1
        if self.alive:
            freed = False
            for (submit, session), outcome in zip(batch, outcomes, strict=True):
                self._worked.add(session.client_id)
                if outcome is not None:
                    freed = freed or outcome.freed
                    if outcome.calmed:
                        self.wait_ended(session.client_id)
                session.volunteer.stored(session, submit, outcome)
            if freed:
                self.work()
        self._commit()

    # Sessions

    def begin(self, session: Session) -> None:
        """A hello: who is this (twice), its memberships and counters, and a row for the session."""
        self.sessions[session] = None
        self.tell()
        self.day.store.ledger.note("session", 5, 1)

    def withdraw(self, session: Session) -> None:
        """A session wants nothing more."""
        if self._queue.pending(session.session_id):
            self._queue.withdraw(session.session_id)

    def end(self, session: Session) -> None:
        """A connection is noticed to have ended."""
        if session not in self.sessions or not self.alive:
            return
        session.alive = False
        del self.sessions[session]
        self.withdraw(session)
        store, member = self.day.store, session.volunteer.member
        freed = store.release_session(session, member, CUT_OFF, session.volunteer.delivered(session))
        store.ledger.note("session", 1, 1)  # at most: those that end within 50 ms are noted together
        if freed:
            self.tell()
            self.work()

    # The clock: flow/expiry.py

    def _tick(self) -> None:
        if not self.alive:
            return
        store = self.day.store
        if self._queue:
            store.ledger.note("small", 1)  # that these clients want to work
        dead, made = store.tick()
        for one in dead:
            self.tell()
            session = cast(Session, one.session)
            session.volunteer.lost(one.bucket)
        if dead or made:
            self.work()
        self.day.clock.after(TICK, self._tick)

    # What is counted: observe/recorder.py, flow/watch.py

    def _record(self) -> None:
        """Once a second: what clients did, what happened, and what the triggers counted."""
        if not self.alive:
            return
        clients, told = len(self._worked), min(self._told, MOST_EVENTS)
        # BEGIN, counters, kinds of results, history, days, COMMIT; events; and adding up.
        statements = 1 + (6 if clients else 0) + (told > 0)
        rows = (3 * clients + HISTORY_STEPS if clients else 0) + told + 1
        self.day.store.ledger.note("record", statements, rows, buckets=clients)
        self._seen |= self._worked
        self._worked.clear()
        self._told = 0
        self.day.clock.after(1.0, self._record)

    def _compare(self) -> None:
        """Each few seconds: how those who worked compare with others."""
        if self.alive:
            if self._seen:
                self.day.store.ledger.note("compare", 2)
                self._seen.clear()
            self.day.clock.after(COMPARE, self._compare)

    def tell(self) -> None:
        """Something happened that the list of events shows."""
        self._told += 1

    def _renew(self) -> None:
        if self.alive:
            # The lease, the others, those whose lease ran out, what they held (3), their sessions; and the listener.
            self.day.store.ledger.note("small", 8, 1)
            self.day.free_crashed(self)
            self.day.clock.after(RENEW_EVERY, self._renew)


def _session(ticket: Ticket) -> Session:
    return cast(Session, ticket.holder)
