"""The demand for one service on this node: who asks, whose turn it is, and who is set aside until when.

Pure: it never waits, asks no database and knows no clock; `now` is passed in, in seconds of a clock that never goes
back.  Nothing else decides whose turn it is.

| state          | why a client is passed over                             | when it is looked at again, at the latest |
|----------------|---------------------------------------------------------|-------------------------------------------|
| `WAITING`      | it is not: it has its turn                              |                                           |
| `BACKING_OFF`  | it has to wait, for its give-backs or its own report    | at the end of its wait, after 300 s       |
| `RETURNED_ALL` | it lately gave back all that is ready, or was unlucky   | after 1 s                                 |
| `AT_LIMIT`     | it holds what it may, or its program is too old by now  | after 1 s                                 |

| event                | WAITING      | BACKING_OFF | RETURNED_ALL | AT_LIMIT     |
|----------------------|--------------|-------------|--------------|--------------|
| `MUST_WAIT`          | BACKING_OFF  | BACKING_OFF | BACKING_OFF  | BACKING_OFF  |
| `ONLY_RETURNED_ONES` | RETURNED_ALL | BACKING_OFF | RETURNED_ALL | RETURNED_ALL |
| `UNLUCKY`            | RETURNED_ALL | BACKING_OFF | RETURNED_ALL | RETURNED_ALL |
| `HOLDS_ENOUGH`       | AT_LIMIT     | BACKING_OFF | AT_LIMIT     | AT_LIMIT     |
| `SOMETHING_CAME`     | WAITING      | BACKING_OFF | WAITING      | AT_LIMIT     |
| `HOLDS_LESS`         | WAITING      | BACKING_OFF | RETURNED_ALL | WAITING      |
| `WAIT_ENDED`         | WAITING      | WAITING     | RETURNED_ALL | AT_LIMIT     |
| `MOMENT_CAME`        | WAITING      | WAITING     | WAITING      | WAITING      |

Nobody is forgotten: whoever is set aside carries a moment at which it has its turn again, whatever is heard or not
heard until then, and whatever the others do.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count, islice, product

from coordinator.flow.session_registry import Holder
from coordinator.model import ClientId, Demand, SessionId

SET_ASIDE_AT_MOST = 1.0
"""Seconds after which a client that gave back all, or holds what it may, has its turn again, whatever is heard."""

BACK_OFF_AT_MOST = 300.0
"""Seconds after which a client that has to wait has its turn again, whatever it was told."""


class ClientState(Enum):
    """Whether a client has its turn, and if not, why.  See the first table above."""

    WAITING = auto()
    BACKING_OFF = auto()
    RETURNED_ALL = auto()
    AT_LIMIT = auto()


class ClientEvent(Enum):
    """A thing that was found about a client, or was heard.  See the second table above."""

    MUST_WAIT = auto()
    ONLY_RETURNED_ONES = auto()
    UNLUCKY = auto()
    """Something was ready, and it got nothing for no reason that is left."""
    HOLDS_ENOUGH = auto()
    SOMETHING_CAME = auto()
    """Something was put into the pool or the queue, or another thing has changed that concerns all."""
    HOLDS_LESS = auto()
    WAIT_ENDED = auto()
    MOMENT_CAME = auto()


_WAITING, _BACKING_OFF, _RETURNED_ALL, _AT_LIMIT = ClientState

# In the order of the states.
_ROWS: Mapping[ClientEvent, tuple[ClientState, ClientState, ClientState, ClientState]] = {
    ClientEvent.MUST_WAIT: (_BACKING_OFF, _BACKING_OFF, _BACKING_OFF, _BACKING_OFF),
    ClientEvent.ONLY_RETURNED_ONES: (_RETURNED_ALL, _BACKING_OFF, _RETURNED_ALL, _RETURNED_ALL),
    ClientEvent.UNLUCKY: (_RETURNED_ALL, _BACKING_OFF, _RETURNED_ALL, _RETURNED_ALL),
    ClientEvent.HOLDS_ENOUGH: (_AT_LIMIT, _BACKING_OFF, _AT_LIMIT, _AT_LIMIT),
    ClientEvent.SOMETHING_CAME: (_WAITING, _BACKING_OFF, _WAITING, _AT_LIMIT),
    ClientEvent.HOLDS_LESS: (_WAITING, _BACKING_OFF, _RETURNED_ALL, _WAITING),
    ClientEvent.WAIT_ENDED: (_WAITING, _WAITING, _RETURNED_ALL, _AT_LIMIT),
    ClientEvent.MOMENT_CAME: (_WAITING, _WAITING, _WAITING, _WAITING),
}

CLIENT_STATES: Mapping[tuple[ClientState, ClientEvent], ClientState] = {
    (state, event): _ROWS[event][place] for (place, state), event in product(enumerate(ClientState), ClientEvent)
}
"""The state of a client after an event, for each state before it."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One bucket that a session asks for; an immediate ask does not wait for it."""

    holder: Holder
    asked_at: float
    immediate: bool = False
    withdrawn: bool = False
    since: float = field(init=False)
    """When it was asked for, or its client last had its turn."""

    def __post_init__(self) -> None:
        self.since = self.asked_at

    @property
    def demand(self) -> Demand:
        """The same as the database is asked it."""
        return Demand(self.holder.client_id, self.holder.session_id, self.holder.address, self.holder.agent)


@dataclass(frozen=True, slots=True)
class SetAside:
    """Why a client is passed over, and when it has its turn again at the latest."""

    state: ClientState
    look_again_at: float


class DemandQueue:
    """The tickets of one service on this node, by client, in the order of their turns."""

    def __init__(self) -> None:
        self.times_heard = 0
        """Grows whenever something comes: what was found out before that may be over."""
        self._queued: OrderedDict[ClientId, deque[Ticket]] = OrderedDict()
        self._immediate = 0
        """Immediate asks among the queued tickets."""
        self._in_flight: dict[Ticket, None] = {}
        """Tickets that a claim statement is under way for."""
        self._pending: dict[SessionId, int] = {}

        self._set_aside: dict[ClientId, SetAside] = {}
        self._until_something_comes: set[ClientId] = set()
        """Those of them that have their turn again when something comes."""
        self._moments: list[tuple[float, int, ClientId]] = []
        """A heap of when clients have their turn again; those that had it sooner stay in it until then."""
        self._numbers = count()
        self._doubted: set[ClientId] = set()
        """Clients that were at their limit until their moment came: this node may not know what they hold."""
        self._ended_meanwhile: set[tuple[ClientId, ClientState]] = set()
        """Reasons that have ended since the last tickets were taken: who is in flight is not set aside for them."""

    # What is asked for

    def __bool__(self) -> bool:
        return bool(self._queued)

    @property
    def clients(self) -> list[ClientId]:
        """The clients with queued tickets, in the order of their turns."""
        return list(self._queued)

    @property
    def sessions(self) -> list[SessionId]:
        """The sessions that wait."""
        return list(self._pending)

    @property
    def in_flight(self) -> list[Ticket]:
        """The tickets that a claim statement is under way for."""
        return list(self._in_flight)

    @property
    def buckets(self) -> int:
        """The number of buckets that the sessions wait for."""
        return sum(self._pending.values())

    def pending(self, session: SessionId) -> int:
        """Return how many buckets a session waits for."""
        return self._pending.get(session, 0)

    def add(self, ticket: Ticket) -> None:
        """Put a new ticket behind those of its client."""
        self._queued.setdefault(ticket.holder.client_id, deque()).append(ticket)
        if ticket.immediate:
            self._immediate += 1
        else:
            session = ticket.holder.session_id
            self._pending[session] = self._pending.get(session, 0) + 1

    def withdraw(self, session: SessionId) -> None:
        """Drop all that a session waits for; its immediate asks are answered all the same."""
        self._pending.pop(session, None)
        for ticket in self._in_flight:
            if ticket.holder.session_id == session and not ticket.immediate:
                ticket.withdrawn = True

        for client, tickets in list(self._queued.items()):
            self._keep(client, deque(t for t in tickets if t.holder.session_id != session or t.immediate))

    def take_immediate(self, *, of_set_aside: bool = False) -> list[Ticket]:
        """Take the immediate asks out of the queue: all of them, or only those of clients that are set aside."""
        if not self._immediate:
            return []

        taken: list[Ticket] = []
        for client in list(self._set_aside if of_set_aside else self._queued):
            if (tickets := self._queued.get(client)) is None:
                continue
            taken += [ticket for ticket in tickets if ticket.immediate]
            self._keep(client, deque(ticket for ticket in tickets if not ticket.immediate))
        self._immediate -= len(taken)
        return taken

    def _keep(self, client: ClientId, tickets: deque[Ticket]) -> None:
        if tickets:
            self._queued[client] = tickets
        else:
            del self._queued[client]

    # Turns

    def anyone_waiting(self) -> bool:
        """Tell whether some client has its turn."""
        if len(self._queued) > len(self._set_aside):
            return True
        return any(client not in self._set_aside for client in self._queued)

    def waiting_since(self) -> float | None:
        """Return since when the client waits whose turn is next; None if nobody has its turn."""
        tickets = next((tickets for client, tickets in self._queued.items() if client not in self._set_aside), None)
        return None if tickets is None else tickets[0].since

    def take(self, most: int, now: float) -> list[Ticket]:
        """Take the next tickets, one of each client in turn; they are in flight until `done` or `put_back`."""
        taken: list[Ticket] = []
        self._doubted.intersection_update(self._queued)
        # No more than can be served in the first turn: a queue may be of all the node's sessions.
        turn = list(islice((client for client in self._queued if client not in self._set_aside), most))
        while turn and len(taken) < most:
            next_turn = []
            for client in turn:
                if len(taken) >= most:
                    break
                tickets = self._queued[client]
                taken.append(tickets.popleft())
                if tickets:
                    tickets[0].since = now
                    next_turn.append(client)
                    self._queued.move_to_end(client)
                else:
                    del self._queued[client]
            turn = next_turn

        self._ended_meanwhile.clear()
        self._immediate -= sum(ticket.immediate for ticket in taken)
        self._in_flight.update(dict.fromkeys(taken))
        return taken

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """Return those tickets that are still in flight to the places that they had."""
        for ticket in reversed(tickets):
            if ticket not in self._in_flight:
                continue
            del self._in_flight[ticket]
            if ticket.withdrawn:
                continue

            client = ticket.holder.client_id
            self._queued.setdefault(client, deque()).appendleft(ticket)
            self._queued.move_to_end(client, last=False)
            self._immediate += ticket.immediate

    def done(self, ticket: Ticket) -> None:
        """Note that a ticket was served, or that nobody waits for it any more."""
        self._in_flight.pop(ticket, None)
        if ticket.immediate or ticket.withdrawn:
            return

        session = ticket.holder.session_id
        left = self._pending.get(session, 0) - 1
        if left > 0:
            self._pending[session] = left
        else:
            self._pending.pop(session, None)

    # Setting aside

    def state_of(self, client: ClientId) -> ClientState:
        """Tell whether a client has its turn, and if not, why."""
        found = self._set_aside.get(client)
        return ClientState.WAITING if found is None else found.state

    def set_aside(self, client: ClientId, event: ClientEvent, now: float, seconds: float = SET_ASIDE_AT_MOST) -> None:
        """Pass a client over, for so many seconds at most; not if the reason has ended since it was taken."""
        if (client, CLIENT_STATES[ClientState.WAITING, event]) in self._ended_meanwhile:
            return
        bound = BACK_OFF_AT_MOST if event is ClientEvent.MUST_WAIT else SET_ASIDE_AT_MOST
        self._change(client, event, now + min(seconds, bound))

    def doubted(self, client: ClientId) -> bool:
        """Tell whether a client is to be looked at though it seems to hold what it may: a signal may be lost."""
        return client in self._doubted

    def something_came(self) -> None:
        """Give their turn to those that may be served now; whoever has to wait does so."""
        self.times_heard += 1
        for client in list(self._until_something_comes):
            self._change(client, ClientEvent.SOMETHING_CAME)

    def holds_less(self, client: ClientId) -> bool:
        """Note that a client holds a bucket less; returns whether it was at its limit."""
        return self._reason_ended(client, ClientState.AT_LIMIT, ClientEvent.HOLDS_LESS)

    def wait_ended(self, client: ClientId) -> bool:
        """Note that a client need not wait any more, or not as long as it was told; returns whether it was waiting."""
        return self._reason_ended(client, ClientState.BACKING_OFF, ClientEvent.WAIT_ENDED)

    def _reason_ended(self, client: ClientId, state: ClientState, event: ClientEvent) -> bool:
        before = self.state_of(client)
        self._change(client, event)
        if self._in_flight:
            self._ended_meanwhile.add((client, state))
        return before is state

    def look_if_due(self, now: float) -> bool:
        """Give their turn to those whose moment has come; returns whether somebody's wait is over."""
        wait_over = False
        while self._moments and self._moments[0][0] <= now:
            _, _, client = heappop(self._moments)
            found = self._set_aside.get(client)
            if found is not None and found.look_again_at <= now:
                wait_over = wait_over or found.state is ClientState.BACKING_OFF
                self._change(client, ClientEvent.MOMENT_CAME)
                if found.state is ClientState.AT_LIMIT:
                    self._doubted.add(client)
        return wait_over

    def next_moment(self) -> float | None:
        """Return when the next client that is set aside has its turn again; None if nobody is set aside."""
        while self._moments:
            moment, _, client = self._moments[0]
            found = self._set_aside.get(client)
            if found is not None and found.look_again_at == moment:
                return moment
            heappop(self._moments)  # it had its turn sooner
        return None

    def _change(self, client: ClientId, event: ClientEvent, look_again_at: float = 0.0) -> None:
        before = self.state_of(client)
        after = CLIENT_STATES[before, event]
        if after is before:
            return

        if after is ClientState.WAITING:
            del self._set_aside[client]
        else:
            self._doubted.discard(client)
            self._set_aside[client] = SetAside(after, look_again_at)
            heappush(self._moments, (look_again_at, next(self._numbers), client))
        if CLIENT_STATES[after, ClientEvent.SOMETHING_CAME] is after:
            self._until_something_comes.discard(client)
        else:
            self._until_something_comes.add(client)
