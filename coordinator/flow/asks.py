"""Decide what each ask may get.  protocol.md, "ask" """

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from coordinator.errors import Draining, NoWork
from coordinator.flow.catalogue import Entry, refuse_strangers
from coordinator.flow.core import RETRY_AFTER_DRAIN, Core
from coordinator.flow.grant import Grant
from coordinator.flow.hold_limits import HoldLimits
from coordinator.flow.session_registry import Holder
from coordinator.model import Claimed
from coordinator.observe import health
from coordinator.wire.client import Ask, Asked

RETRY_AFTER_NO_WORK = 2.0
"""Seconds until a client that does not wait for work should ask again."""


@dataclass(frozen=True, slots=True)
class AskOutcome:
    """The answer to an ask, and the buckets that are pushed behind it at once."""

    answer: Asked
    at_hand: Sequence[Claimed] = ()


class Asks:
    """Decides what each ask may get, and lets its session wait for it."""

    def __init__(self, core: Core, grant: Grant) -> None:
        self._catalogue = core.catalogue
        self._counters = core.counters
        self._grant = grant
        self._limits = HoldLimits(core)

    async def ask(self, ask: Ask, holder: Holder) -> AskOutcome:
        """Answer one ask; 0 buckets withdraw what the session waits for.

        The caller sends the answer before it lets anything else run: the pushes come behind it.

        Raises:
            UnknownService, ServiceRevoked, ClientDeactivated, NotJoined
            Draining: this node hands out no more.
            NoWork: the ask does not wait, and there is nothing at hand.
            Unavailable: the database is away.
        """
        entry = self._catalogue.get(ask.service)
        service = entry.service.service_id
        refuse_strangers(entry, holder.identity, idle_may=False)
        if holder.draining:
            raise Draining("This node drains.", retry_after=RETRY_AFTER_DRAIN, scope="server")

        limit = self._limits.of_one_ask(holder.identity, entry)
        if ask.count == 0:
            self._grant.withdraw(holder, service)
            return AskOutcome(Asked(service=ask.service, count=0, pending=0, limit=limit))

        room = await self._limits.room(holder.identity, entry) - self._grant.pending_of_client(holder, service)
        count = max(0, min(ask.count, limit, room))
        if count:
            self._note_hoarding(holder, entry)

        at_hand: Sequence[Claimed] = ()
        if ask.wait:
            self._grant.ask(holder, service, count)
        else:
            at_hand = await self._grant.ask_now(holder, service, count)
            if not at_hand:
                raise NoWork("There is nothing at hand.", retry_after=RETRY_AFTER_NO_WORK, scope="service")
            count = len(at_hand)
        pending = self._grant.pending(holder, service)
        return AskOutcome(Asked(service=ask.service, count=count, pending=pending, limit=limit), at_hand)

    def _note_hoarding(self, holder: Holder, entry: Entry) -> None:
        """Count it if all that the client holds here has lain untouched for long.

        Once for each such time, however many asks come in it.
        """
        service = entry.service.service_id
        delivered = [held.delivered_at for held in holder.identity.held.values() if held.service_id == service]
        if not delivered:
            return

        moments, now = holder.identity.moments_in(service), monotonic()
        untouched_since = max(min(delivered), moments.submitted, moments.hoarded)
        if now - untouched_since >= health.patience(entry.service.settings.dead_after):
            moments.hoarded = now
            self._counters.hoarded(holder.client_id, service)
