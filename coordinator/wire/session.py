"""The states of a session on the client channel, and the messages legal in each.  protocol.md, "Life of a session"

Nothing else decides what is legal: the server asks this table, and the drawing in protocol.md is made
from it.

    connected ── hello ──> open ── drain ──> draining ──> closed

Every state may go to `closed` at any time, since the connection is the heartbeat.
"""

from __future__ import annotations

from enum import Enum

from coordinator.errors import OutOfOrder
from coordinator.wire import client
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import Request


class State(Enum):
    """The state of a session."""

    CONNECTED = "connected"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class SessionEvent(Enum):
    """An event that changes the state of a session."""

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
        client.MeExport,
    }
)

LEGAL: dict[State, frozenset[type[Request]]] = {
    State.CONNECTED: frozenset({client.Hello}),
    State.OPEN: _AFTER_HELLO,
    State.DRAINING: _AFTER_HELLO,  # `ask` is legal here, and its step answers `draining`
    State.CLOSED: frozenset(),
}

MOVES: dict[tuple[State, SessionEvent], State] = {
    (State.CONNECTED, SessionEvent.WELCOMED): State.OPEN,
    (State.CONNECTED, SessionEvent.DRAIN): State.CONNECTED,  # it holds nothing; it is closed at the end
    (State.OPEN, SessionEvent.DRAIN): State.DRAINING,
    (State.DRAINING, SessionEvent.DRAIN): State.DRAINING,
    (State.CLOSED, SessionEvent.DRAIN): State.CLOSED,
    (State.CONNECTED, SessionEvent.END): State.CLOSED,
    (State.OPEN, SessionEvent.END): State.CLOSED,
    (State.DRAINING, SessionEvent.END): State.CLOSED,
    (State.CLOSED, SessionEvent.END): State.CLOSED,
}

NEEDS_REGISTRATION: frozenset[type[Request]] = _AFTER_HELLO - {client.Register, client.Services}
"""Requests that are legal only for a registered identity."""


class Life:
    """The state of one session."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.CONNECTED

    def admit(self, request: type[Request]) -> None:
        """Check that a request is legal now.

        Raises:
            OutOfOrder: it is not legal in this state; the state stays as it is.
        """
        if request not in LEGAL[self.state]:
            raise OutOfOrder(f"{tag_of(request)} is not legal while the session is {self.state.value}.")

    def move(self, event: SessionEvent) -> None:
        """Change the state as the table says.

        Raises:
            KeyError: the table has no such move; a fault of this program.
        """
        self.state = MOVES[self.state, event]
