"""Decide what each ask may get.  protocol.md, "ask" """

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from msgspec import structs

from coordinator.errors import Draining, NoWork, Outdated
from coordinator.flow import hold_limits
from coordinator.flow.allowed_agents import too_old
from coordinator.flow.catalogue import Entry, refuse_strangers
from coordinator.flow.core import RETRY_AFTER_DRAIN, Core
from coordinator.flow.grant import Grant
from coordinator.flow.session_registry import Holder
from coordinator.flow.wait_reasons import waiting_of
from coordinator.model import Claimed, JsonObject
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
        self._database = core.database
        self._counters = core.counters
        self._grant = grant

    async def ask(self, ask: Ask, holder: Holder) -> AskOutcome:
        """Answer one ask; 0 buckets withdraw what the session waits for.

        The caller sends the answer before it lets anything else run: the pushes come behind it.

        Raises:
            UnknownService, ServiceRevoked, ClientDeactivated, NotJoined, Outdated
            Draining: this node hands out no more.
            NoWork: the ask does not wait, and there is nothing at hand.
            Unavailable: the database is away.
        """
        entry = self._catalogue.get(ask.service)
        service = entry.service.service_id
        refuse_strangers(entry, holder.identity, idle_may=False)
        old = too_old(holder.agent, entry.service.settings)
        if old is not None and ask.count:
            detail: JsonObject = {"agent": old.agent, "minimum": old.minimum}
            raise Outdated(f"{ask.service}: {old.text}.", detail=detail, scope="client")
        if holder.draining:
            raise Draining("This node drains.", retry_after=RETRY_AFTER_DRAIN, scope="server")

        limit = hold_limits.of_one_ask(holder.identity, entry)
        if ask.count == 0:
            self._grant.withdraw(holder, service)
            return AskOutcome(Asked(service=ask.service, count=0, pending=0, limit=limit, waiting=None))

        # What it holds does not count: it may ask for the next bucket while it submits the last one.
        room = hold_limits.most_held(holder.identity, entry) - self._grant.pending_of_client(holder, service)
        count = max(0, min(ask.count, limit, room))
        if count and hold_limits.room_here(holder.identity, entry) > 0:
            self._note_hoarding(holder, entry)

        if ask.wait:
            return await self._wait(ask, holder, entry, count, limit)
        at_hand = await self._grant.ask_now(holder, service, count)
        if not at_hand:
            raise NoWork("There is nothing at hand.", retry_after=RETRY_AFTER_NO_WORK, scope="service")
        waits_on = await self._wait(ask, holder, entry, 0, limit)
        return AskOutcome(structs.replace(waits_on.answer, count=len(at_hand)), [*at_hand, *waits_on.at_hand])

    async def _wait(self, ask: Ask, holder: Holder, entry: Entry, count: int, limit: int) -> AskOutcome:
        """Let a session wait for `count` more buckets, and tell what is at hand, and why the rest is not."""
        service = entry.service.service_id
        look, wait = self._grant.ask(holder, service, count), None
        try:
            await look.wait()
            if look.gathers and self._grant.pending(holder, service):
                wait = await self._grant.wait_of(holder, service)
        finally:
            left = self._grant.pending(holder, service)
            wait = wait if left else None
            self._grant.answered(look, service, wait)

        answer = Asked(
            service=ask.service, count=count, pending=left + len(look.gathered), limit=limit, waiting=waiting_of(wait)
        )
        return AskOutcome(answer, look.gathered)

    def _note_hoarding(self, holder: Holder, entry: Entry) -> None:
        """Count it if all that the client holds here has lain untouched for long.

        Once for each such time, however many asks come in it.  While the database is away nothing can be settled.
        """
        service = entry.service.service_id
        delivered = [held.delivered_at for held in holder.identity.held.values() if held.service_id == service]
        if not delivered:
            return

        moments, now = holder.identity.moments_in(service), monotonic()
        untouched_since = max(min(delivered), moments.submitted, moments.hoarded, self._database.failed_at)
        if now - untouched_since >= health.patience(entry.service.settings.dead_after):
            moments.hoarded = now
            self._counters.hoarded(holder.client_id, service)
