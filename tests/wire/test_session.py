"""Each state and message of the legality table."""

from __future__ import annotations

import pytest

from coordinator.errors import OutOfOrder
from coordinator.wire import client
from coordinator.wire.client import ANSWERS
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import Request
from coordinator.wire.session import LEGAL, MOVES, NEEDS_REGISTRATION, Life, SessionEvent, State

REQUESTS = list(ANSWERS)

# Told a second time, by hand: what a client may rely on.
AFTER_HELLO = set(REQUESTS) - {client.Hello}
MAY: dict[State, set[type[Request]]] = {
    State.CONNECTED: {client.Hello},
    State.OPEN: AFTER_HELLO,
    State.DRAINING: AFTER_HELLO,
    State.CLOSED: set(),
}
GOES = {
    (State.CONNECTED, SessionEvent.WELCOMED): State.OPEN,
    (State.OPEN, SessionEvent.DRAIN): State.DRAINING,
    **{(state, SessionEvent.END): State.CLOSED for state in State},
}
STAYS = {(state, SessionEvent.DRAIN) for state in State if state is not State.OPEN}


def _at(state: State) -> Life:
    life = Life()
    life.state = state
    return life


def test_a_session_starts_connected() -> None:
    assert Life().state is State.CONNECTED


@pytest.mark.parametrize("request_type", REQUESTS, ids=tag_of)
@pytest.mark.parametrize("state", State)
def test_every_request_in_every_state(state: State, request_type: type[Request]) -> None:
    life = _at(state)
    if request_type in MAY[state]:
        life.admit(request_type)
    else:
        with pytest.raises(OutOfOrder) as refusal:
            life.admit(request_type)
        assert tag_of(request_type) in refusal.value.message
        assert state.value in refusal.value.message
    assert life.state is state


@pytest.mark.parametrize("event", SessionEvent)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, event: SessionEvent) -> None:
    life = _at(state)
    if (state, event) in GOES:
        life.move(event)
        assert life.state is GOES[state, event]
    elif (state, event) in STAYS:
        life.move(event)
        assert life.state is state
    else:
        with pytest.raises(KeyError):
            life.move(event)
        assert life.state is state


def test_the_tables_name_nothing_else() -> None:
    assert set(LEGAL) == set(State)
    assert set().union(*LEGAL.values()) == set(REQUESTS)
    assert set(MOVES) == GOES.keys() | STAYS


def test_a_session_from_beginning_to_end() -> None:
    life = Life()
    with pytest.raises(OutOfOrder):
        life.admit(client.Ask)
    life.admit(client.Hello)
    life.move(SessionEvent.WELCOMED)
    with pytest.raises(OutOfOrder):
        life.admit(client.Hello)
    life.admit(client.Ask)
    life.move(SessionEvent.DRAIN)
    life.admit(client.Submit)
    life.move(SessionEvent.END)
    with pytest.raises(OutOfOrder):
        life.admit(client.Submit)


def test_who_must_be_registered() -> None:
    assert set(REQUESTS) - NEEDS_REGISTRATION == {client.Hello, client.Register, client.Services}
