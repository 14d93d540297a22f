"""What is legal when, on the client channel.  protocol.md, "Life of a session"

Nothing else decides what is legal: the server asks this table, and the drawing in protocol.md is made
from it.

    connected ── hello ──> open ── drain ──> draining ──> closed

Every state may go to `closed` at any time: the connection is the heartbeat.
"""

from __future__ import annotations

from enum import Enum

from coordinator.errors import OutOfOrder
from coordinator.wire import client
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import Request


class State(Enum):
    """Where a session is in its life."""

    CONNECTED = "connected"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Event(Enum):
    """What moves a session on, beside the messages themselves."""

    WELCOMED = "welcomed"
    DRAIN = "drain"
    END = "end"


_AFTER_HELLO: frozenset[type[Request]] = frozenset(
    {
        client.Register,
        client.Unregister,
        client.Services,
        client.Join,
        client.Leave,
        client.Activate,
        client.Ask,
        client.Submit,
        client.Release,
        client.Recollect,
        client.Report,
    }
)

LEGAL: dict[State, frozenset[type[Request]]] = {
    State.CONNECTED: frozenset({client.Hello}),
    State.OPEN: _AFTER_HELLO,
    State.DRAINING: _AFTER_HELLO,  # `ask` is legal here, and its step answers `draining`
    State.CLOSED: frozenset(),
}

MOVES: dict[tuple[State, Event], State] = {
    (State.CONNECTED, Event.WELCOMED): State.OPEN,
    (State.CONNECTED, Event.DRAIN): State.CONNECTED,  # it has nothing to lose; it is closed at the end
    (State.OPEN, Event.DRAIN): State.DRAINING,
    (State.DRAINING, Event.DRAIN): State.DRAINING,
    (State.CLOSED, Event.DRAIN): State.CLOSED,
    (State.CONNECTED, Event.END): State.CLOSED,
    (State.OPEN, Event.END): State.CLOSED,
    (State.DRAINING, Event.END): State.CLOSED,
    (State.CLOSED, Event.END): State.CLOSED,
}

NEEDS_REGISTRATION: frozenset[type[Request]] = _AFTER_HELLO - {client.Register, client.Services}
"""Requests that an identity makes only once it is registered."""


class Life:
    """The state of one session."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.CONNECTED

    def admit(self, request: type[Request]) -> None:
        """Let a request pass.

        Raises:
            OutOfOrder: it is not legal in this state, which it leaves unchanged.
        """
        if request not in LEGAL[self.state]:
            raise OutOfOrder(f"{tag_of(request)} is not legal while the session is {self.state.value}.")

    def move(self, event: Event) -> None:
        """Go on in the session's life.

        Raises:
            KeyError: the table has no such move; a fault of this program.
        """
        self.state = MOVES[self.state, event]
