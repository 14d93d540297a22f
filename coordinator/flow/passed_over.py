"""Clients that a claim is not made for, or did not serve: why, and what follows for their place in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic

from coordinator.flow import hold_limits
from coordinator.flow.allowed_agents import too_old
from coordinator.flow.catalogue import Entry
from coordinator.flow.claimer import Claimer
from coordinator.flow.core import Core
from coordinator.flow.demand_queue import SET_ASIDE_AT_MOST, ClientEvent, DemandQueue, Ticket
from coordinator.flow.wait_reasons import wait_of_client
from coordinator.flow.wait_teller import WaitTeller
from coordinator.model import ClientId, ServiceId, Wait
from coordinator.store import waits
from coordinator.store.waits import WaitFacts


@dataclass(slots=True)
class Sorted:
    """The clients that have given back all that is ready, and those for which nothing was ready.

    `took_back`: a bucket that was claimed meanwhile went back.  `budget_spent`: nothing is handed out to anybody for so
    many seconds, or until some bucket is free.
    """

    returned_all: set[ClientId] = field(default_factory=set)
    others: set[ClientId] = field(default_factory=set)
    took_back: bool = False
    budget_spent: float | None = None


class PassedOver:
    """Sorts the clients of one service that are not served."""

    def __init__(
        self, service: ServiceId, core: Core, queue: DemandQueue, claimer: Claimer, teller: WaitTeller
    ) -> None:
        self._service = service
        self._database = core.database
        self._queue = queue
        self._claimer = claimer
        self._teller = teller

    def leave_out(self, entry: Entry, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Return the tickets that may be served, as far as is known here.

        Those clients are set aside that may hold nothing more for certain, or whose program is too old by now.
        """
        rooms: dict[ClientId, int] = {}
        within: list[Ticket] = []
        beyond: list[Ticket] = []
        for ticket in tickets:
            client = ticket.holder.client_id
            if client not in rooms:
                rooms[client] = hold_limits.room_here(ticket.holder.identity, entry)
                if rooms[client] <= 0 and self._queue.doubted(client):
                    rooms[client] = 1
                elif rooms[client] <= 0:
                    self._hold_back(client)

            if too_old(ticket.holder.agent, entry.service.settings) is not None:
                self._hold_back(client)
                beyond.append(ticket)
                continue
            rooms[client] -= 1
            (beyond if rooms[client] < 0 else within).append(ticket)

        self._queue.put_back(beyond)
        return within

    def _hold_back(self, client: ClientId) -> None:
        self._queue.set_aside(client, ClientEvent.HOLDS_ENOUGH, monotonic())
        self._teller.look(client)

    async def sort(self, entry: Entry, unserved: Sequence[Ticket], left: int) -> Sorted:
        """Set those aside that have to wait or hold enough, and claim singly for those that gave something back.

        That only if some buckets are `left`: whoever gave much back must not make the others wait for nothing.

        Raises:
            Unavailable
        """
        demands = [ticket.demand for ticket in unserved]
        async with self._database.connection() as db:
            found = await waits.find_waits(db, self._service, demands, entry.service.settings)

        outcome, now = Sorted(), monotonic()
        for ticket in unserved:
            client = ticket.holder.client_id
            facts = found.get(client)
            wait = None if facts is None else wait_of_client(entry.service, facts)
            if facts is not None and wait is not None and wait.reason == "budget":
                outcome.budget_spent = SET_ASIDE_AT_MOST if wait.until is None else _seconds(facts, wait.until)
            elif facts is not None and wait is not None and self._set_aside(facts, wait, now):
                self._teller.look(client)
            elif facts is None or not facts.returned or not left:
                outcome.others.add(client)
            elif client not in outcome.returned_all:
                claim = await self._claimer.claim_unblocked(entry, ticket)
                outcome.took_back |= claim.took_back
                if not claim.served:
                    outcome.returned_all.add(client)
        return outcome

    def _set_aside(self, facts: WaitFacts, wait: Wait, now: float) -> bool:
        """Set a client aside if the reason is its own; returns whether it is."""
        match wait.reason:
            case "reported" | "backing_off":
                until = max(filter(None, (facts.reported_until, facts.backing_off_until)))
                self._queue.set_aside(facts.client_id, ClientEvent.MUST_WAIT, now, _seconds(facts, until))
            case "at_limit" | "newcomer":
                self._queue.set_aside(facts.client_id, ClientEvent.HOLDS_ENOUGH, now)
            case _:
                return False
        return True


def _seconds(facts: WaitFacts, until: datetime) -> float:
    return (until - facts.at).total_seconds()
