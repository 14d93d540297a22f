"""Demand → claim → push.  protocol.md, "ask"

Each service has a line.  What sessions ask while a claim statement runs waits in it, and the next statement takes
all of that at once, in turn between the clients, so that a large ask does not starve a small one.  A line that found
the pool empty is dry: it asks the database again when something may have come in, not for every new ask.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Any

import structlog
from msgspec import Raw

from coordinator.errors import Unavailable
from coordinator.flow.bucket_builder import BucketBuilder, Made, frame_of
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.demand_queue import Line, Ticket
from coordinator.flow.session_registry import Held, Holder
from coordinator.model import Claimed, ClientId, Demand, ServiceId, SessionId
from coordinator.observe.histogram import WaitTimes
from coordinator.store import claims
from coordinator.wire.client import Bucket, BucketDead

log = structlog.get_logger()

BATCH = 128
"""Demands to a claim statement, at most: what waits while another one runs, so that it is few unless many ask."""

POLL = 2.0
"""Seconds after which a dry line looks again though nobody woke it: the net below the wake-ups."""

RETRY = 0.5
"""Seconds between tries while the database is away."""

FIRST = 0.005
"""Seconds for which whoever waits goes before an admin's request goes on."""

LONGEST_PARK = 300.0
"""Seconds after which a client that has to wait is looked at again, whatever it was told."""


class Grant:
    """Hands out buckets to the sessions of this node."""

    def __init__(self, core: Core, builder: BucketBuilder) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._builder = builder
        self._counters = core.counters
        self._boot = core.boot
        self._state = core.state
        self._lost_track = core.lost_track
        self._lines: dict[ServiceId, Line] = {}
        self._group: asyncio.TaskGroup | None = None
        self.waits = WaitTimes()
        """How long clients of this node waited."""

    async def run(self) -> None:
        """Serve the lines until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for line in self._lines.values():
                line.task = self._group.create_task(self._serve(line))
            await asyncio.get_running_loop().create_future()

    def line(self, service: ServiceId) -> Line:
        """The line of a service."""
        found = self._lines.get(service)
        if found is None:
            found = self._lines[service] = Line(service)
            if self._group is not None:
                found.task = self._group.create_task(self._serve(found))
        return found

    def pending(self, holder: Holder, service: ServiceId) -> int:
        """How many buckets a session still waits for."""
        line = self._lines.get(service)
        return 0 if line is None else line.pending.get(holder.session_id, 0)

    def pending_of_client(self, holder: Holder, service: ServiceId) -> int:
        """The same for all sessions of its client on this node."""
        line = self._lines.get(service)
        if line is None:
            return 0
        return sum(line.pending.get(session, 0) for session in holder.identity.sessions)

    def ask(self, holder: Holder, service: ServiceId, count: int) -> None:
        """Let a session wait for `count` more buckets."""
        line = self.line(service)
        idle = not line.tickets  # then nobody polls, and what made the line dry may be long ago
        for _ in range(count):
            line.add(Ticket(holder))
        if count and (idle or not line.dry):
            line.woken.set()

    def note_ask(self, holder: Holder, service: ServiceId, patience: float) -> None:
        """A session asks: note if all that its client holds here has lain untouched for `patience` seconds.

        Once for each such time, however many asks come in it.
        """
        held = [one.delivered_at for one in holder.identity.held.values() if one.service_id == service]
        if not held:
            return
        moments = holder.identity.moments_in(service)
        now = monotonic()
        if now - max(min(held), moments.submitted, moments.hoarded) >= patience:
            moments.hoarded = now
            self._counters.hoarded(holder.client_id, service)

    async def ask_now(self, holder: Holder, service: ServiceId, count: int) -> list[Claimed]:
        """What is at hand, `count` buckets at most; the caller delivers it.

        Raises:
            Unavailable: the database is away.
        """
        if not count:
            return []
        line = self.line(service)
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Claimed | None]] = [loop.create_future() for _ in range(count)]
        for answer in answers:
            line.add(Ticket(holder, answer))
        line.dry = False
        line.woken.set()
        await asyncio.wait(answers)
        found = [claimed for answer in answers if answer.exception() is None and (claimed := answer.result())]
        failures = [failure for answer in answers if (failure := answer.exception()) is not None]
        if failures and not found:
            raise failures[0]
        return found

    def withdraw(self, holder: Holder, service: ServiceId | None = None) -> None:
        """Let a session wait for nothing more, in one service or in all."""
        for line in self._lines.values():
            if service is None or line.service_id == service:
                line.withdraw(holder.session_id)

    def hear(self, service: ServiceId, *, waiting: bool) -> None:
        """Some node has put something into the pool or the queue."""
        self._builder.forget(service)
        self.wake(service, waiting=waiting)

    def on_work(self, signal: dict[str, Any]) -> None:
        """Look for work that some node has put into the pool or the queue."""
        self.hear(ServiceId(signal["service"]), waiting=signal.get("waiting", False))

    def wake(self, service: ServiceId, *, waiting: bool = False) -> None:
        """There may be work: something ready, or, if `waiting`, new items that are in no bucket yet."""
        line = self._lines.get(service)
        if line is not None:
            line.unmade = waiting and (line.dry or line.unmade)
            line.dry = False
            line.look_again()
            line.rested.clear()
            line.woken.set()

    async def served(self, services: Iterable[ServiceId]) -> None:
        """Let those go first who wait for what has just come; it takes `FIRST` seconds at most."""
        waited_for = [line for service in services if (line := self._lines.get(service)) is not None and line.tickets]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST):
                for line in waited_for:
                    await line.rested.wait()

    def has_room(self, client: ClientId, service: ServiceId) -> None:
        """A client holds one bucket less: it may have been served what it may hold."""
        line = self._lines.get(service)
        if line is not None and client in line.full:
            self.wake(service)

    def close(self, service: ServiceId) -> None:
        """Nobody waits for that service any more: it was revoked."""
        line = self._lines.get(service)
        if line is not None:
            self._answer_hurried(line)
            for session in list(line.pending):
                line.withdraw(session)

    def waiting_clients(self, service: ServiceId) -> list[ClientId]:
        """The clients here that want work of a service."""
        line = self._lines.get(service)
        return [] if line is None else list(line.tickets)

    def demand(self) -> dict[str, tuple[int, int]]:
        """For each service by name: buckets that sessions here wait for, and how many clients do."""
        return {
            name: (sum(line.pending.values()), len(line.tickets))
            for service, line in self._lines.items()
            if line.tickets and (name := self._catalogue.name_of(service)) is not None
        }

    async def all_delivered(self) -> None:
        """Wait until every claim that has begun by now is in the registry."""
        for line in list(self._lines.values()):
            async with line.claiming:
                pass

    async def _serve(self, line: Line) -> None:
        while True:
            if not line.woken.is_set():
                line.rested.set()
            try:
                async with asyncio.timeout(POLL if line.tickets else None):
                    await line.woken.wait()
            except TimeoutError:
                line.look_again()
            line.woken.clear()
            line.dry = False
            try:
                await self._serve_all(line)
            except Unavailable:
                self._answer_hurried(line, away=True)
                await asyncio.sleep(RETRY)
                line.woken.set()
            except Exception:
                # One bad bucket must not stop a service, let alone the node.
                log.exception("granting failed", service=self._catalogue.name_of(line.service_id))
                self._answer_hurried(line, away=True)
                self._lost_track.set()
                await asyncio.sleep(RETRY)
                line.woken.set()

    async def _serve_all(self, line: Line) -> None:
        while not line.dry:
            entry = self._catalogue.by_id(line.service_id)  # it may be revoked, or set otherwise, meanwhile
            if entry.service.state != "active" or self._state.draining:
                self._answer_hurried(line)
                return
            unmade, line.unmade = line.unmade, False
            if unmade and line.tickets:
                await self._make_new(line, entry)  # there was nothing to claim: that need not be tried first
            tickets = await self._within_limits(line, self._worth_serving(line, line.take(BATCH)))
            if not tickets:
                if all(line.aside(client) for client in line.tickets):
                    self._answer_set_aside(line)
                    return
                continue
            served = await self._claim(line, entry, tickets)
            left = [ticket for ticket in tickets if ticket not in served]
            if left:
                await self._without(line, entry, left)

    def _worth_serving(self, line: Line, tickets: list[Ticket]) -> list[Ticket]:
        """Leave out what nobody waits for any more, or may not be served."""
        worth = []
        for ticket in tickets:
            holder = ticket.holder
            gone = holder.session_id not in self._registry.sessions or holder.draining
            if gone or not holder.alive or not holder.identity.works_for(line.service_id):
                self._resolve(line, ticket, None)
            else:
                worth.append(ticket)
        return worth

    async def _within_limits(self, line: Line, tickets: list[Ticket]) -> list[Ticket]:
        """Leave out what flagged clients asked for before they were: they may hold one bucket, on all nodes together.

        Everyone else is held to what it may when it asks.
        """
        flagged = {
            one.holder.client_id for one in tickets if one.holder.identity.health_in(line.service_id) == "flagged"
        }
        if not flagged:
            return tickets
        within: list[Ticket] = []
        beyond: list[Ticket] = []
        try:
            for ticket in tickets:
                client = ticket.holder.client_id
                if client in flagged and (client in line.full or await self._holds(client, line.service_id)):
                    beyond.append(ticket)
                else:
                    within.append(ticket)
                if client in flagged:
                    line.full.add(client)
        except BaseException:
            line.put_back(tickets)
            raise
        line.put_back(beyond)
        return within

    async def _holds(self, client: ClientId, service: ServiceId) -> bool:
        async with self._database.connection() as db:
            return await claims.held_count(db, client, service) > 0

    async def _claim(self, line: Line, entry: Entry, tickets: list[Ticket]) -> set[Ticket]:
        """One claim statement for many tickets; returns those that were served."""
        demands = [Demand(ticket.holder.client_id, ticket.holder.session_id) for ticket in tickets]
        async with line.claiming:
            try:
                async with self._database.connection() as db:
                    handout = await claims.claim(db, line.service_id, demands, self._boot)
            except BaseException:
                line.put_back(tickets)
                self._lost_track.set()
                raise
            if handout.claimed and line.low(handout.left):
                self._fill(line, entry)
            return await self._hand_out(line, tickets, handout.claimed)

    def _fill(self, line: Line, entry: Entry) -> None:
        """Have more buckets made while those that are left are handed out."""
        if self._group is not None and line.filling is None and not line.exhausted:
            line.filling = self._group.create_task(self._make_ahead(line, entry))

    async def _make_ahead(self, line: Line, entry: Entry) -> None:
        try:
            await self._make(line, entry, wanted=False)
        except Unavailable:
            pass  # whoever asks next finds out
        except Exception:
            log.exception("filling the pool failed", service=entry.service.name)
        finally:
            line.filling = None

    async def _hand_out(self, line: Line, tickets: list[Ticket], claimed: list[Claimed]) -> set[Ticket]:
        waiting: dict[SessionId, deque[Ticket]] = {}
        for ticket in tickets:
            waiting.setdefault(ticket.holder.session_id, deque()).append(ticket)
        served: set[Ticket] = set()
        orphans: list[tuple[Ticket, Claimed]] = []
        for one in claimed:
            ticket = waiting[one.session_id].popleft()
            served.add(ticket)
            lost_sense = ticket.withdrawn or (ticket.answer is not None and ticket.answer.done())
            if lost_sense or not self.take_in(one, ticket.holder):
                orphans.append((ticket, one))
                continue
            self._resolve(line, ticket, one)
            self.waits.bucket.add(line.service_id, monotonic() - ticket.asked_at)
            if ticket.answer is None:
                self.push(one, ticket.holder)
        await self._take_back([one for _, one in orphans])
        for ticket, _ in orphans:  # only now, so that the end of its session finds nothing to charge for
            self._resolve(line, ticket, None)
        return served

    async def _take_back(self, orphans: list[Claimed]) -> None:
        """Claims whose sessions had ended go back, and cost nothing."""
        try:
            for one in orphans:
                async with self._database.connection() as db:
                    await claims.release_claim(db, one.bucket_id, one.claim, claims.UNDELIVERED, 0.0)
                self.wake(one.service_id)
        except Unavailable:
            self._lost_track.set()

    async def _without(self, line: Line, entry: Entry, left: list[Ticket]) -> None:
        """Some got nothing: because they have to wait, are choosy, or there is nothing."""
        try:
            hungry, choosy = await self._why(line, left)
            # An ask that does not wait is told "nothing" only when there is nothing, not when another builder is busy.
            patient = any(ticket.answer is not None for ticket in left)
            made = None
            if line.filling is not None and hungry and not choosy:
                await asyncio.wait([line.filling])
            elif hungry or choosy:
                made = await self._make(line, entry, needy=bool(choosy), patient=patient)
        finally:
            line.put_back([ticket for ticket in left if ticket in line.flying])
        if made is None or made.buckets:
            return
        if made.busy:
            asyncio.get_running_loop().call_later(0.05, self.wake, line.service_id)
        line.choosy.update(choosy)
        if hungry:
            line.dry = True
            self._answer_hurried(line)

    async def _make(
        self, line: Line, entry: Entry, *, wanted: bool = True, needy: bool = False, patient: bool = False
    ) -> Made:
        line.exhausted = True  # until more is known to be there, or something new is heard of meanwhile
        made = await self._builder.make(entry, wanted=wanted, needy=needy, patient=patient)
        if not made.busy:
            line.target = made.target
        if made.full or made.busy or (made.buckets and not made.drained):
            line.exhausted = False
        return made

    async def _make_new(self, line: Line, entry: Entry) -> None:
        line.exhausted = True  # as in `_make`
        if not await self._builder.make_few(entry):
            await self._make(line, entry)

    async def _why(self, line: Line, left: list[Ticket]) -> tuple[set[ClientId], set[ClientId]]:
        """Sort out who was not served; returns the clients for whom there was nothing, and the choosy of them."""
        async with self._database.connection() as db:
            reasons = {
                wait.client_id: wait
                for wait in await claims.find_waits(db, line.service_id, list({t.holder.client_id for t in left}))
            }
        hungry: set[ClientId] = set()
        choosy: set[ClientId] = set()
        for ticket in left:
            client = ticket.holder.client_id
            wait = reasons.get(client)
            if wait is not None and wait.seconds is not None:
                self._park(line, client, wait.seconds)
            elif wait is not None and wait.has_blocks:
                if client not in choosy and not await self._claim_choosy(line, ticket):
                    choosy.add(client)
            else:
                hungry.add(client)
        return hungry, choosy

    async def _claim_choosy(self, line: Line, ticket: Ticket) -> bool:
        demand = Demand(ticket.holder.client_id, ticket.holder.session_id)
        async with line.claiming:
            try:
                async with self._database.connection() as db:
                    claimed = await claims.claim_unblocked(db, line.service_id, demand, self._boot)
            except BaseException:
                self._lost_track.set()
                raise
            if claimed is None:
                return False
            await self._hand_out(line, [ticket], [claimed])
            return True

    def _park(self, line: Line, client: ClientId, seconds: float) -> None:
        if client in line.parked:
            return
        loop = asyncio.get_running_loop()
        line.parked[client] = loop.call_later(min(seconds, LONGEST_PARK), self.unpark, client, line.service_id)

    def unpark(self, client: ClientId, service: ServiceId) -> None:
        """A client need not wait any more, or not as long as was thought: look again."""
        line = self._lines.get(service)
        timer = None if line is None else line.parked.pop(client, None)
        if timer is not None:
            timer.cancel()
            self.wake(service)

    def _answer_set_aside(self, line: Line) -> None:
        for client in list(line.tickets):
            if line.aside(client):
                self._answer_hurried(line, client)

    def _answer_hurried(self, line: Line, only: ClientId | None = None, *, away: bool = False) -> None:
        """Tell the asks that do not wait that there is nothing, or that the database is away; the others wait on."""
        for client, queue in list(line.tickets.items()):
            if only is not None and client != only:
                continue
            kept = deque(ticket for ticket in queue if ticket.answer is None)
            for ticket in queue:
                if away and ticket.answer is not None and not ticket.answer.done():
                    ticket.answer.set_exception(Unavailable("The database cannot be reached."))
                if ticket.answer is not None:
                    self._resolve(line, ticket, None)
            if kept:
                line.tickets[client] = kept
            else:
                del line.tickets[client]

    def _resolve(self, line: Line, ticket: Ticket, claimed: Claimed | None) -> None:
        line.done(ticket)
        if ticket.answer is not None and not ticket.answer.done():
            ticket.answer.set_result(claimed)

    def take_in(self, claimed: Claimed, holder: Holder) -> bool:
        """Note a claim as held; False if its session has ended or lost the right to it meanwhile."""
        if (
            holder.session_id not in self._registry.sessions
            or holder.draining
            or not holder.alive
            or not holder.identity.works_for(claimed.service_id)
            or self._catalogue.by_id(claimed.service_id).service.state == "revoked"
        ):
            return False
        self._registry.hold(
            Held(
                claimed.service_id,
                claimed.bucket_id,
                claimed.claim,
                holder,
                claimed.items,
                claimed.settled.translate(_FLIP),
                monotonic(),
            )
        )
        self._counters.assigned(claimed.client_id, claimed.service_id)
        return True

    def push(self, claimed: Claimed, holder: Holder) -> None:
        """Send a bucket to its new holder."""
        settings = self._catalogue.by_id(claimed.service_id).service.settings
        holder.push(
            Bucket(
                service=self._catalogue.by_id(claimed.service_id).service.name,
                bucket_id=str(claimed.bucket_id),
                claim=claimed.claim,
                items=Raw(frame_of(claimed).encode()),
                attempt=claimed.attempts + 1,
                dead_after=settings.dead_after,
                release_after=settings.release_after,
            )
        )
        if claimed.dead:
            holder.push(
                BucketDead(bucket_id=str(claimed.bucket_id), claim=claimed.claim, release_after=settings.release_after)
            )


_FLIP = str.maketrans("01", "10")
