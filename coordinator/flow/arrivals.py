"""Those who say hello: who they are, and that their sessions have begun.  protocol.md, "hello"

Hellos that come while others are dealt with are dealt with together, by two statements however many there are.  A crowd
that connects takes one connection to the database, and leaves the others to those who work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from coordinator import credentials
from coordinator.errors import ClientDeactivated, Unauthorized, Unavailable
from coordinator.flow.core import Core
from coordinator.flow.session_registry import Identity
from coordinator.model import ClientId, SessionId
from coordinator.store import clients
from coordinator.store.clients import COUNTERS, KnownClient, NewSession
from coordinator.store.pool import Connection
from coordinator.wire.frames import Close

log = structlog.get_logger()

MOST_AT_ONCE = 64
"""Hellos that are dealt with together."""


@dataclass(slots=True, eq=False)
class _Arrival:
    """A hello; its answer are the counters of the client."""

    identity: Identity
    session: NewSession
    answer: asyncio.Future[dict[str, int]]
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    def check(self, known: KnownClient | None) -> bool:
        """Tell whether a client may come in; if not, it is told why."""
        if known is None:
            return True
        self.counters = known.counters
        client = known.client
        if client.secret_hash is not None and not credentials.same(client.secret_hash, self.identity.secret_hash):
            self.fail(Unauthorized("Wrong secret for that client id.", close_code=Close.BAD_CREDENTIALS))
        elif client.secret_hash is not None and client.deactivated is not None:
            self.fail(deactivated(client.deactivated))
        return not self.answer.done()

    def welcome(self) -> None:
        """Let it in."""
        if not self.answer.done():
            self.answer.set_result(self.counters)

    def fail(self, failure: Exception) -> None:
        """Tell it why not."""
        if not self.answer.done():
            self.answer.set_exception(failure)


class Arrivals:
    """The queue of hellos that wait to be dealt with."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._boot = core.boot
        self._queue: deque[_Arrival] = deque()
        self._arrived = asyncio.Event()
        self._group: asyncio.TaskGroup

    async def add(self, identity: Identity, session: SessionId, address: str, agent: str | None) -> dict[str, int]:
        """Read what the database knows of an identity, and note its session if it is registered.

        Returns the counters of the client of that id.

        Raises:
            Unauthorized: it is bound to another secret.
            ClientDeactivated: by an admin, as a whole.
            Unavailable
        """
        begins = NewSession(session, identity.client_id, address, agent)
        arrival = _Arrival(identity, begins, asyncio.get_running_loop().create_future())
        self._queue.append(arrival)
        self._arrived.set()
        return await arrival.answer

    async def run(self) -> None:
        """Deal with whoever comes, until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            while True:
                await self._arrived.wait()
                group = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_AT_ONCE))]
                if not self._queue:
                    self._arrived.clear()
                await self._answer(group, self._deal_with(group))

    async def _answer(self, group: Sequence[_Arrival], dealing: Coroutine[Any, Any, None]) -> None:
        """Tell a group if it could not be dealt with; but one that is at fault fails alone."""
        try:
            await dealing
        except asyncio.CancelledError:
            for arrival in group:
                arrival.fail(Unavailable("The node ends."))
            raise
        except Exception as failure:
            left = [arrival for arrival in group if not arrival.answer.done()]
            if len(group) == 1 or isinstance(failure, Unavailable):
                for arrival in left:
                    arrival.fail(failure)
                return
            log.warning("hellos failed, dealing with them one by one", hellos=len(group), error=repr(failure))
            for arrival in left:
                self._group.create_task(self._answer([arrival], self._deal_with([arrival])))

    async def _deal_with(self, group: Sequence[_Arrival]) -> None:
        """Read what is known of all, and note the sessions of those that are registered."""
        async with self._database.connection() as db:
            known = await read_identities(db, [arrival.identity for arrival in group])
            welcome = [arrival for arrival in group if arrival.check(known.get(arrival.identity.client_id))]
            registered = [arrival.session for arrival in welcome if arrival.identity.registered]
            begun = await clients.begin_sessions(db, registered, self._boot) if registered else set()

        for arrival in welcome:
            if arrival.identity.registered and arrival.session.session_id not in begun:
                self._group.create_task(self._answer([arrival], self._begin_alone(arrival)))
            else:
                arrival.welcome()

    async def _begin_alone(self, arrival: _Arrival) -> None:
        """Note a session, however long its client is locked; a client that was forgotten meanwhile is read again."""
        async with self._database.connection() as db:
            if not await clients.begin_session(db, arrival.session, self._boot):
                await read_identities(db, [arrival.identity])
        arrival.welcome()


def deactivated(reason: str) -> ClientDeactivated:
    """Return the refusal of a client that an admin has deactivated."""
    return ClientDeactivated(
        f"An admin has deactivated this client: {reason}",
        detail={"reason": "admin"},
        scope="client",
        close_code=Close.DEACTIVATED,
    )


async def read_identities(db: Connection, identities: Sequence[Identity]) -> dict[ClientId, KnownClient]:
    """Read what the database says of identities, unless a reading that began later was faster; returns it."""
    numbers = [identity.begin_reading() for identity in identities]
    found = await clients.read(db, {identity.client_id for identity in identities})

    for identity, number in zip(identities, numbers, strict=True):
        known = found.get(identity.client_id)
        if known is None or known.client.secret_hash != identity.secret_hash:
            identity.end_reading(number, False, None, ())
        else:
            identity.end_reading(number, known.client.registered, known.client.deactivated, known.memberships)
    return found
