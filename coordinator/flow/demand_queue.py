"""A line: what the sessions of this node want of one service, and whose turn it is.  It never waits; `Grant` does."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic

from coordinator.flow.session_registry import Holder
from coordinator.model import Claimed, ClientId, ServiceId, SessionId
from coordinator.store.claims import FRONT_BUCKETS


@dataclass(slots=True, eq=False)
class Ticket:
    """One bucket wanted.  `answer` is set by an ask that does not wait."""

    holder: Holder
    answer: asyncio.Future[Claimed | None] | None = None
    withdrawn: bool = False
    asked_at: float = field(default_factory=monotonic)


@dataclass(slots=True, eq=False)
class Line:
    """The demand for one service on this node."""

    service_id: ServiceId
    tickets: OrderedDict[ClientId, deque[Ticket]] = field(default_factory=OrderedDict)
    pending: dict[SessionId, int] = field(default_factory=dict)
    parked: dict[ClientId, asyncio.TimerHandle] = field(default_factory=dict)
    """Clients that have to wait; a timer brings them back."""
    choosy: set[ClientId] = field(default_factory=set)
    """Clients that lately gave back all that is at hand; anything new brings them back."""
    full: set[ClientId] = field(default_factory=set)
    """Flagged clients that hold what they may; looked at again as the choosy ones are."""
    flying: set[Ticket] = field(default_factory=set)
    """Tickets that a claim statement is under way for."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from before a claim statement until what it claimed is in the registry."""
    rested: asyncio.Event = field(default_factory=asyncio.Event)
    """All that it was woken for is done."""
    dry: bool = False
    unmade: bool = False
    """It was dry until new items came, which are in no bucket yet."""
    target: int = 2 * FRONT_BUCKETS
    """How many ready buckets there should be, as far as is known here."""
    filling: asyncio.Task[None] | None = None
    """A run of the builder that was begun before the pool was empty."""
    exhausted: bool = False
    """There was nothing to make ahead of, and nothing new was heard of since."""
    task: asyncio.Task[None] | None = None

    def add(self, ticket: Ticket) -> None:
        client = ticket.holder.client_id
        self.tickets.setdefault(client, deque()).append(ticket)
        if ticket.answer is None:
            session = ticket.holder.session_id
            self.pending[session] = self.pending.get(session, 0) + 1

    def take(self, most: int) -> list[Ticket]:
        """The next tickets, one of each client in turn."""
        taken: list[Ticket] = []
        # No more than can be served in the first turn: a line may be of all the node's sessions.
        ready = list(islice((client for client in self.tickets if not self.aside(client)), most))
        while ready and len(taken) < most:
            still = []
            for client in ready:
                if len(taken) >= most:
                    break
                queue = self.tickets[client]
                taken.append(queue.popleft())
                if queue:
                    still.append(client)
                    self.tickets.move_to_end(client)
                else:
                    del self.tickets[client]
            ready = still
        self.flying.update(taken)
        return taken

    def aside(self, client: ClientId) -> bool:
        """Whether a client is not to be served for now."""
        return client in self.parked or client in self.choosy or client in self.full

    def look_again(self) -> None:
        """Something has changed: there may be work for those that were set aside."""
        self.choosy.clear()
        self.full.clear()
        self.exhausted = False

    def low(self, left: int) -> bool:
        """Whether so few ready buckets are left that more should be made now; a claim sees `FRONT_BUCKETS` at most."""
        return left < max(1, min(self.target // 2, FRONT_BUCKETS))

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """Tickets that were not served keep their place."""
        for ticket in reversed(tickets):
            self.flying.discard(ticket)
            if ticket.withdrawn:
                continue
            client = ticket.holder.client_id
            self.tickets.setdefault(client, deque()).appendleft(ticket)
            self.tickets.move_to_end(client, last=False)

    def done(self, ticket: Ticket) -> None:
        """A ticket was served or has lost its sense."""
        self.flying.discard(ticket)
        if ticket.answer is None and not ticket.withdrawn:
            session = ticket.holder.session_id
            left = self.pending.get(session, 0) - 1
            if left > 0:
                self.pending[session] = left
            else:
                self.pending.pop(session, None)

    def withdraw(self, session: SessionId) -> None:
        """Nothing is pending for that session any more."""
        self.pending.pop(session, None)
        for ticket in self.flying:
            if ticket.holder.session_id == session and ticket.answer is None:
                ticket.withdrawn = True
        for client, queue in list(self.tickets.items()):
            kept = deque(t for t in queue if t.holder.session_id != session or t.answer is not None)
            if kept:
                self.tickets[client] = kept
            else:
                del self.tickets[client]
