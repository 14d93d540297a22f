"""The way to the dispatchers, for sessions and for the other steps: one dispatcher for each service."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from time import monotonic

from coordinator.flow.bucket_builder import BucketBuilder
from coordinator.flow.core import Core
from coordinator.flow.delivery import Delivery
from coordinator.flow.dispatcher import Dispatcher
from coordinator.flow.first_look import FirstLook
from coordinator.flow.longest_waits import LOOK_INTERVAL
from coordinator.flow.pool_fronts import FrontWatch
from coordinator.flow.pool_view import PoolEvent
from coordinator.flow.session_registry import Holder
from coordinator.flow.signal_types import LongWaits, WorkCame
from coordinator.flow.wait_teller import EndOfWait
from coordinator.model import Claimed, ClientId, ServiceId, SessionId, Wait
from coordinator.observe.histogram import WaitTimes
from coordinator.observe.node_load import Pending, PendingBuckets

SERVE_WAITING_FIRST = 0.005
"""Seconds for which an admin's request lets those go first that wait for what it has brought."""


class Grant:
    """Hands out buckets to the sessions of this node."""

    def __init__(self, core: Core, builder: BucketBuilder) -> None:
        self._core = core
        self._builder = builder
        self._delivery = Delivery(core)
        self._dispatchers: dict[ServiceId, Dispatcher] = {}
        self._group: asyncio.TaskGroup | None = None
        self.waits = WaitTimes()
        """How long clients of this node waited."""

    async def run(self) -> None:
        """Run the dispatchers, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(FrontWatch(self._core.database, self._core.fronts).run())
                self._group.create_task(self._tell_long_waits())
                for dispatcher in self._dispatchers.values():
                    self._group.create_task(dispatcher.run())
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    async def _tell_long_waits(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            serving = {} if self._core.state.draining else self._dispatchers
            firsts = {service: dispatcher.queue.waiting_since() for service, dispatcher in serving.items()}
            since = {service: moment for service, moment in firsts.items() if moment is not None}
            self._core.longest_waits.tell(since, monotonic())

    def dispatcher(self, service: ServiceId) -> Dispatcher:
        """Return the dispatcher of a service."""
        found = self._dispatchers.get(service)
        if found is None:
            found = Dispatcher(service, self._core, self._builder, self._delivery, self.waits)
            self._dispatchers[service] = found
            if self._group is not None:
                self._group.create_task(found.run())
        return found

    # Sessions

    def ask(self, holder: Holder, service: ServiceId, count: int) -> FirstLook:
        """Let a session wait for `count` more buckets; `answered` follows, once it has its answer."""
        return self.dispatcher(service).ask(holder, count)

    async def wait_of(self, holder: Holder, service: ServiceId) -> Wait | None:
        """Return why a session waits; None if something is ready for it, or if the database is away."""
        return await self.dispatcher(service).teller.wait_of(holder)

    def answered(self, look: FirstLook, service: ServiceId, wait: Wait | None) -> None:
        """Note that an ask has its answer, which tells this; from now on its buckets are pushed."""
        self.dispatcher(service).answered(look, wait)

    async def ask_now(self, holder: Holder, service: ServiceId, count: int) -> list[Claimed]:
        """Claim what is at hand, `count` buckets at most; the caller delivers it.

        Raises:
            Unavailable: the database is away.
        """
        return await self.dispatcher(service).ask_now(holder, count)

    def withdraw(self, holder: Holder, service: ServiceId | None = None) -> None:
        """Let a session wait for nothing more, in one service or in all."""
        for dispatcher in self._dispatchers.values():
            if service is None or dispatcher.service == service:
                dispatcher.queue.withdraw(holder.session_id)

    def tell_drain(self, holder: Holder) -> None:
        """Tell a session, which is about to end, that nothing comes for that."""
        for dispatcher in self._dispatchers.values():
            dispatcher.teller.tell_drain(holder)

    def drop(self, holder: Holder, service: ServiceId | None, reason: EndOfWait, text: str) -> None:
        """Let a session wait for nothing more, though it has not said so itself, and tell it."""
        for dispatcher in self._dispatchers.values():
            if service is None or dispatcher.service == service:
                dispatcher.drop(holder, reason, text)

    def pending(self, holder: Holder, service: ServiceId) -> int:
        """Return how many buckets a session still waits for."""
        dispatcher = self._dispatchers.get(service)
        return 0 if dispatcher is None else dispatcher.queue.pending(holder.session_id)

    def pending_of_client(self, holder: Holder, service: ServiceId) -> int:
        """Return how many buckets all sessions of a session's client on this node still wait for."""
        dispatcher = self._dispatchers.get(service)
        if dispatcher is None:
            return 0
        return sum(dispatcher.queue.pending(session) for session in holder.identity.sessions)

    def take_in(self, claimed: Claimed, holder: Holder) -> bool:
        """Note a claim as held; False if its session has ended or lost the right to it meanwhile."""
        return self._delivery.take_in(claimed, holder)

    def push(self, claimed: Claimed, holder: Holder) -> None:
        """Send a bucket to its new holder."""
        self._delivery.push(claimed, holder)

    # What the other steps tell

    def hear(self, service: ServiceId, *, waiting: bool, behind: bool = False) -> None:
        """Look for what some node has put into the pool, `behind` all that was there, or into the queue (`waiting`)."""
        self._builder.forget(service)
        if not behind:
            self._core.fronts.forget(service)
        self.wake(service, waiting=waiting)

    def on_work(self, came: WorkCame) -> None:
        """Look for work that some node has put into the pool or the queue."""
        self.hear(came.service, waiting=came.waiting, behind=came.behind)

    def on_long_waits(self, told: LongWaits) -> None:
        """Take in how long clients of another node wait."""
        self._core.longest_waits.hear(told, monotonic())

    def wake(self, service: ServiceId, *, waiting: bool = False) -> None:
        """Look for work: something may be ready, or, if `waiting`, there are new items that are in no bucket yet."""
        dispatcher = self._dispatchers.get(service)
        if dispatcher is not None:
            dispatcher.hear(PoolEvent.ITEMS_CAME if waiting else PoolEvent.READY_CAME)

    def lost(self, client: ClientId, service: ServiceId) -> None:
        """Note that a client holds a bucket less, and perhaps has to wait for that, or may hold less."""
        for identity in self._core.registry.identities(client):
            identity.moments_in(service).proven = 0
        self.holds_less(client, service)

    def holds_less(self, client: ClientId, service: ServiceId) -> None:
        """Note that a client holds a bucket less: it may have been at its limit."""
        dispatcher = self._dispatchers.get(service)
        if dispatcher is not None:
            dispatcher.holds_less(client)

    def wait_ended(self, client: ClientId, service: ServiceId) -> None:
        """Note that a client need not wait any more, or not as long as it was told."""
        dispatcher = self._dispatchers.get(service)
        if dispatcher is not None:
            dispatcher.wait_ended(client)

    def reloaded(self, service: ServiceId) -> None:
        """Look for work, and at why clients wait: the service was set otherwise."""
        self.wake(service)
        dispatcher = self._dispatchers.get(service)
        if dispatcher is not None:
            dispatcher.teller.look_at_all()

    def close(self, service: ServiceId) -> None:
        """Drop all demand for a service: it was revoked."""
        dispatcher = self._dispatchers.get(service)
        if dispatcher is not None:
            dispatcher.close(self._core.registry.sessions)

    # What the other steps wait for and look at

    async def served(self, services: Iterable[ServiceId]) -> None:
        """Let those go first that wait for what has just come; takes `SERVE_WAITING_FIRST` at most."""
        found = [self._dispatchers[service] for service in services if service in self._dispatchers]
        waited_for = [dispatcher for dispatcher in found if dispatcher.queue]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVE_WAITING_FIRST):
                for dispatcher in waited_for:
                    await dispatcher.idle.wait()

    async def all_delivered(self) -> None:
        """Wait until every claim that has begun by now is in the registry."""
        for dispatcher in list(self._dispatchers.values()):
            async with dispatcher.claiming:
                pass

    def waits_for(self, session: SessionId) -> list[ServiceId]:
        """Return the services of which a session waits for buckets."""
        return [service for service, one in self._dispatchers.items() if one.queue.pending(session)]

    def waiting_sessions(self) -> dict[SessionId, frozenset[ServiceId]]:
        """Return the sessions here that wait, and the services of which they do."""
        sessions = {session for one in self._dispatchers.values() for session in one.queue.sessions}
        return {session: frozenset(self.waits_for(session)) for session in sessions}

    def waiting_clients(self, service: ServiceId) -> list[ClientId]:
        """Return the clients here that want work of a service."""
        dispatcher = self._dispatchers.get(service)
        return [] if dispatcher is None else dispatcher.queue.clients

    def waiting_by_reason(self) -> dict[ServiceId, Counter[str]]:
        """Count the sessions here that wait for each service by the reason that each was told last."""
        return {service: dispatcher.teller.sessions() for service, dispatcher in self._dispatchers.items()}

    def demand(self) -> Pending:
        """Return for each service by name how many buckets sessions here wait for, how many clients do, and why."""
        return {
            name: PendingBuckets(dispatcher.queue.buckets, len(dispatcher.queue.clients), dispatcher.teller.reasons())
            for service, dispatcher in self._dispatchers.items()
            if dispatcher.queue and (name := self._core.catalogue.name_of(service)) is not None
        }
