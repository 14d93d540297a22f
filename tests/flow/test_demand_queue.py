"""Turns, setting aside, and that nobody is forgotten; no node and no database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.flow.bucket_builder import BuildOutcome, BuildStatus
from coordinator.flow.demand_queue import (
    BACK_OFF_AT_MOST,
    CLIENT_STATES,
    SET_ASIDE_AT_MOST,
    ClientEvent,
    ClientState,
    DemandQueue,
    Ticket,
)
from coordinator.flow.dispatcher import LOOK_AGAIN_SOON, MOST_DEMANDS_A_CLAIM, Step, next_step
from coordinator.flow.pool_view import (
    BELIEVE_EMPTY_FOR,
    LOOK_AT_EMPTY_POOL_AFTER,
    POOL_STATES,
    PoolEvent,
    PoolState,
    PoolView,
)
from coordinator.flow.session_registry import Identity
from coordinator.model import ClientId, SessionId

ADA, BOB, CLEO = ClientId("ada"), ClientId("bob"), ClientId("cleo")

_numbers = count(1)


@dataclass(eq=False)
class Session:
    """A holder that takes everything."""

    client_id: ClientId
    session_id: SessionId = field(default_factory=lambda: SessionId(UUID(int=next(_numbers))))
    address: str = ""
    agent: str | None = None
    draining: bool = False
    told_notices: frozenset[int] | None = None
    alive: bool = True

    @property
    def identity(self) -> Identity:
        return Identity(self.client_id, b"")

    def push(self, message: Any) -> None: ...

    def end(self, code: int, reason: str) -> None: ...


def ask(queue: DemandQueue, session: Session, buckets: int = 1, *, immediate: bool = False) -> list[Ticket]:
    tickets = [Ticket(session, 0.0, immediate=immediate) for _ in range(buckets)]  # type: ignore[arg-type]
    for ticket in tickets:
        queue.add(ticket)
    return tickets


def clients_of(tickets: Sequence[Ticket]) -> list[ClientId]:
    return [ticket.holder.client_id for ticket in tickets]


# The tables


PUT_INTO: dict[ClientState, ClientEvent | None] = {
    ClientState.WAITING: None,
    ClientState.BACKING_OFF: ClientEvent.MUST_WAIT,
    ClientState.RETURNED_ALL: ClientEvent.ONLY_RETURNED_ONES,
    ClientState.AT_LIMIT: ClientEvent.HOLDS_ENOUGH,
}


REASONS = (ClientEvent.MUST_WAIT, ClientEvent.ONLY_RETURNED_ONES, ClientEvent.UNLUCKY, ClientEvent.HOLDS_ENOUGH)


def happens(queue: DemandQueue, client: ClientId, event: ClientEvent) -> None:
    if event in REASONS:
        queue.set_aside(client, event, 10.0, 1e9)
    elif event is ClientEvent.SOMETHING_CAME:
        queue.something_came()
    elif event is ClientEvent.HOLDS_LESS:
        queue.holds_less(client)
    elif event is ClientEvent.WAIT_ENDED:
        queue.wait_ended(client)
    else:
        queue.look_if_due(10.0 + BACK_OFF_AT_MOST)


@pytest.mark.parametrize("event", ClientEvent)
@pytest.mark.parametrize("state", ClientState)
def test_each_state_of_a_client_and_each_event(state: ClientState, event: ClientEvent) -> None:
    queue = DemandQueue()
    ask(queue, Session(ADA))
    if (how := PUT_INTO[state]) is not None:
        queue.set_aside(ADA, how, 10.0, 1e9)
    assert queue.state_of(ADA) is state

    happens(queue, ADA, event)
    after = queue.state_of(ADA)
    assert after is CLIENT_STATES[state, event]
    assert queue.anyone_waiting() == (after is ClientState.WAITING)
    assert len(queue.take(1, 0.0)) == (after is ClientState.WAITING)
    if after is ClientState.WAITING:
        assert queue.next_moment() is None
    else:
        bound = BACK_OFF_AT_MOST if after is ClientState.BACKING_OFF else SET_ASIDE_AT_MOST
        assert queue.next_moment() == 10.0 + bound


def test_whoever_is_set_aside_has_its_turn_again_by_a_moment_whatever_is_heard() -> None:
    for state in ClientState:
        assert CLIENT_STATES[state, ClientEvent.MOMENT_CAME] is ClientState.WAITING


def test_the_tables_know_all_states_and_events() -> None:
    assert CLIENT_STATES.keys() == {(state, event) for state in ClientState for event in ClientEvent}
    assert POOL_STATES.keys() == {(state, event) for state in PoolState for event in PoolEvent}


@pytest.mark.parametrize("event", PoolEvent)
@pytest.mark.parametrize("state", PoolState)
def test_each_state_of_a_pool_and_each_event(state: PoolState, event: PoolEvent) -> None:
    pool, queue = PoolView(), DemandQueue()
    pool.state = state
    ask(queue, Session(ADA))
    if event is PoolEvent.FOUND_EMPTY:
        pool.found_empty(10.0)
    elif event is PoolEvent.LOOK_DUE:
        pool.look_if_due(10.0)
    else:
        pool.on(event)
    if event is not PoolEvent.LOOK_DUE or state is PoolState.EMPTY:  # others are not due
        assert pool.state is POOL_STATES[state, event]

    steps = {PoolState.EMPTY: Step.WAIT, PoolState.NEW_ITEMS: Step.BUILD}
    assert next_step(pool, queue) is steps.get(pool.state, Step.CLAIM)
    queue.set_aside(ADA, ClientEvent.HOLDS_ENOUGH, 10.0)
    assert next_step(pool, queue) is Step.WAIT


@pytest.mark.parametrize(
    ("status", "after"),
    [
        (BuildStatus.BUILT, PoolState.UNKNOWN),
        (BuildStatus.ALL_BUILT, PoolState.HAS_READY),
        (BuildStatus.POOL_FULL, PoolState.UNKNOWN),
        (BuildStatus.QUEUE_EMPTY, PoolState.HAS_READY),
        (BuildStatus.BUSY, PoolState.UNKNOWN),
    ],
)
def test_what_a_run_of_the_builder_tells_of_the_pool(status: BuildStatus, after: PoolState) -> None:
    pool = PoolView()
    assert pool.build_ahead(0)
    pool.on(PoolEvent.BUILD_BEGAN)
    assert not pool.build_ahead(0)
    pool.built(BuildOutcome(status, 0, 20))
    assert pool.state is after
    assert pool.build_ahead(9) == (after is PoolState.UNKNOWN)
    assert not pool.build_ahead(10), "half of the 20 are enough"


@pytest.mark.parametrize("status", BuildStatus)
def test_what_is_heard_while_buckets_are_built_is_not_forgotten(status: BuildStatus) -> None:
    pool = PoolView()
    pool.on(PoolEvent.BUILD_BEGAN)
    pool.on(PoolEvent.ITEMS_CAME)
    pool.built(BuildOutcome(status))
    assert pool.state is PoolState.UNKNOWN


def test_an_empty_pool_is_looked_at_again_whatever_is_asked() -> None:
    pool = PoolView()
    pool.found_empty(10.0)
    for passed, state in ((0.99, PoolState.EMPTY), (1.0, PoolState.UNKNOWN)):
        pool.look_if_due(10.0 + passed * LOOK_AT_EMPTY_POOL_AFTER)
        assert pool.state is state


def test_asking_at_once_again_and_again_does_not_make_it_look_each_time() -> None:
    pool = PoolView()
    pool.found_empty(10.0)
    for passed, state in ((0.99, PoolState.EMPTY), (1.0, PoolState.UNKNOWN)):
        pool.asked_at_once(10.0 + passed * BELIEVE_EMPTY_FOR)
        assert pool.state is state

    heard = PoolView()
    heard.found_empty(10.0)
    heard.on(PoolEvent.ITEMS_CAME)
    assert heard.state is PoolState.NEW_ITEMS, "what is heard counts at once"

    busy = PoolView()
    busy.found_empty(10.0, LOOK_AGAIN_SOON)  # another builder was at work: that is no empty queue
    busy.asked_at_once(10.0)
    assert busy.state is PoolState.UNKNOWN


@pytest.mark.parametrize(
    ("event", "state"),
    [(ClientEvent.MUST_WAIT, ClientState.BACKING_OFF), (ClientEvent.HOLDS_ENOUGH, ClientState.AT_LIMIT)],
)
def test_nobody_is_set_aside_for_what_has_ended_since_it_was_taken(event: ClientEvent, state: ClientState) -> None:
    queue = DemandQueue()
    ask(queue, Session(ADA), 2)
    for ended in (True, False):
        taken = queue.take(1, 0.0)
        if ended:
            queue.holds_less(ADA)
            queue.wait_ended(ADA)
        queue.set_aside(ADA, event, 0.0)
        queue.put_back(taken)
        assert queue.state_of(ADA) is (ClientState.WAITING if ended else state)


# Turns


def test_clients_take_turns() -> None:
    queue = DemandQueue()
    for client, buckets in ((ADA, 3), (BOB, 1), (CLEO, 2)):
        ask(queue, Session(client), buckets)
    assert clients_of(queue.take(4, 0.0)) == [ADA, BOB, CLEO, ADA]
    assert clients_of(queue.take(4, 0.0)) == [CLEO, ADA]


def test_who_was_not_served_keeps_its_place() -> None:
    queue = DemandQueue()
    for client in (ADA, BOB, CLEO):
        ask(queue, Session(client), 2)
    taken = queue.take(4, 0.0)
    queue.done(taken[0])
    queue.put_back(taken)
    assert clients_of(queue.take(9, 0.0)) == [BOB, CLEO, ADA, BOB, CLEO]


def test_what_is_withdrawn_in_flight_does_not_come_back_but_an_immediate_ask_does() -> None:
    queue, session = DemandQueue(), Session(ADA)
    ask(queue, session, 2)
    (immediate,) = ask(queue, session, immediate=True)
    assert queue.pending(session.session_id) == queue.buckets == 2
    taken = queue.take(9, 0.0)
    assert queue.pending(session.session_id) == 2
    queue.withdraw(session.session_id)
    queue.put_back(taken)
    assert queue.pending(session.session_id) == 0
    assert queue.take_immediate() == [immediate]
    assert not queue


def test_immediate_asks_of_those_set_aside_are_taken_apart() -> None:
    queue, waiting = DemandQueue(), Session(BOB)
    first, second = ask(queue, Session(ADA), immediate=True), ask(queue, waiting, immediate=True)
    ask(queue, waiting)
    queue.set_aside(ADA, ClientEvent.HOLDS_ENOUGH, 0.0)
    assert queue.take_immediate(of_set_aside=True) == first
    assert queue.take_immediate(of_set_aside=True) == []
    assert queue.take_immediate() == second
    assert queue.clients == [BOB]


class Turns(RuleBasedStateMachine):
    """Each ticket stays in one place, and the counts are right, after any asks, takes, returns and withdrawals."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = DemandQueue()
        self.now = 0.0
        self.sessions = [Session(client) for client in (ADA, ADA, BOB, CLEO)]
        self.open: list[Ticket] = []
        self.flying: list[Ticket] = []

    @rule(place=st.integers(0, 3), buckets=st.integers(1, 4), immediate=st.booleans())
    def ask(self, place: int, buckets: int, immediate: bool) -> None:
        self.open += ask(self.queue, self.sessions[place], buckets, immediate=immediate)

    @rule(most=st.integers(1, 6))
    def take(self, most: int) -> None:
        before = {client: self.queue.state_of(client) for client in self.queue.clients}
        waiting = [client for client, state in before.items() if state is ClientState.WAITING]
        taken = self.queue.take(most, 0.0)
        assert clients_of(taken)[: len(waiting)] == waiting[:most], "one of each client in turn"
        self.flying += taken

    @precondition(lambda self: self.flying)
    @rule(served=st.integers(0, 6))
    def end(self, served: int) -> None:
        for ticket in self.flying[:served]:
            self.queue.done(ticket)
            self.open = [one for one in self.open if one is not ticket]
        self.queue.put_back(self.flying)
        self.flying = []

    @rule(place=st.integers(0, 3))
    def withdraw(self, place: int) -> None:
        session = self.sessions[place].session_id
        self.queue.withdraw(session)
        self.open = [one for one in self.open if one.immediate or one.holder.session_id != session]

    @rule(of_set_aside=st.booleans())
    def answer(self, of_set_aside: bool) -> None:
        for ticket in self.queue.take_immediate(of_set_aside=of_set_aside):
            assert ticket.immediate
            assert not of_set_aside or self.queue.state_of(ticket.holder.client_id) is not ClientState.WAITING
            self.queue.done(ticket)
            self.open = [one for one in self.open if one is not ticket]

    @rule(client=st.sampled_from([ADA, BOB, CLEO]), event=st.sampled_from(list(ClientEvent)), passed=st.floats(0, 2))
    def something_happens(self, client: ClientId, event: ClientEvent, passed: float) -> None:
        self.now += passed
        if event is ClientEvent.MOMENT_CAME:
            self.queue.look_if_due(self.now)
        elif event in REASONS:
            self.queue.set_aside(client, event, self.now, 1.0)
        else:
            happens(self.queue, client, event)

    @invariant()
    def counts_are_right(self) -> None:
        pending = Counter(ticket.holder.session_id for ticket in self.open if not ticket.immediate)
        assert {one.session_id: self.queue.pending(one.session_id) for one in self.sessions} == {
            one.session_id: pending[one.session_id] for one in self.sessions
        }
        assert self.queue.buckets == sum(pending.values())
        queued = [ticket for ticket in self.open if ticket not in self.flying]
        assert sorted(self.queue.clients) == sorted({ticket.holder.client_id for ticket in queued})

    @invariant()
    def whoever_is_set_aside_carries_a_moment(self) -> None:
        aside = [one for one in (ADA, BOB, CLEO) if self.queue.state_of(one) is not ClientState.WAITING]
        moment = self.queue.next_moment()
        assert (moment is not None) == bool(aside)
        assert moment is None or moment <= self.now + SET_ASIDE_AT_MOST


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# Nobody is forgotten


@given(
    reason=st.sampled_from(REASONS),
    ends_at=st.floats(0.0, 5.0),
    unlucky=st.integers(0, 1),
    pauses=st.lists(st.floats(0.001, 0.2), min_size=1, max_size=40),
    others=st.integers(1, 3),
    hears=st.lists(st.booleans(), min_size=1, max_size=40),
)
@settings(deadline=None)
def test_nobody_whose_reason_has_ended_stays_set_aside_more_than_a_second(
    reason: ClientEvent, ends_at: float, unlucky: int, pauses: list[float], others: int, hears: list[bool]
) -> None:
    """However others go on asking and being served, and whatever is heard."""
    queue, pool, now = DemandQueue(), PoolView(), 0.0
    ask(queue, Session(ADA), 2)
    rivals = [Session(ClientId(f"rival{n}")) for n in range(others)]
    longest = max(pauses)
    for turn in count():
        # One round of a dispatcher: others ask, a claim runs, and it is concluded why some were not served.
        for rival in rivals:
            ask(queue, rival)
        queue.look_if_due(now)
        pool.look_if_due(now)
        assert next_step(pool, queue) is Step.CLAIM
        taken = queue.take(MOST_DEMANDS_A_CLAIM, 0.0)
        now += pauses[turn % len(pauses)]
        for ticket in taken:
            if ticket.holder.client_id != ADA:
                queue.done(ticket)
            elif now < ends_at:
                queue.set_aside(ADA, reason, now, ends_at - now)
            elif unlucky:
                unlucky -= 1
                queue.set_aside(ADA, reason, now, 0.5)
                ends_at = now  # from then on nothing holds it up
            else:
                return
        queue.put_back(taken)
        if hears[turn % len(hears)]:
            pool.on(PoolEvent.ITEMS_CAME)
        assert now < ends_at + SET_ASIDE_AT_MOST + 2 * longest, "it was forgotten"


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e9))
def test_nobody_backs_off_unseen_for_longer_than_the_bound(now: float, seconds: float) -> None:
    queue = DemandQueue()
    queue.set_aside(ADA, ClientEvent.MUST_WAIT, now, seconds)
    moment = queue.next_moment()
    assert moment == now + min(seconds, BACK_OFF_AT_MOST)
    assert queue.look_if_due(moment)
    assert queue.state_of(ADA) is ClientState.WAITING
