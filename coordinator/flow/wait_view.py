"""Why clients wait, for admins and onlookers: those of this node, and those of the others.

A node knows itself which of its sessions wait.  Where it is not alone, it notes them with their sessions in the
database, once a second, for the others; only what has lasted for a second, so that a busy node writes little.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.wait_reasons import wait_of_client
from coordinator.model import ClientId, Demand, ServiceId, SessionId, Wait
from coordinator.store import clients as store
from coordinator.store import waits
from coordinator.store.pool import Connection

NOTE_INTERVAL = 1.0
"""Seconds between two times that a node notes who waits."""

WaitKey = tuple[ClientId, ServiceId]


class WaitView:
    """Knows which clients wait, on whatever node, and why."""

    def __init__(self, core: Core, grant: Grant) -> None:
        self._core = core
        self._grant = grant
        self._noted: dict[SessionId, frozenset[ServiceId]] = {}
        """Sessions and the services that they wait for, as the database has it."""

    async def of(self, db: Connection, chosen: Iterable[ClientId]) -> Mapping[WaitKey, Wait]:
        """Find why those of these clients wait that do so, in each service."""
        clients = list(chosen)
        demands: dict[ServiceId, dict[ClientId, Demand]] = defaultdict(dict)
        draining: set[WaitKey] = set()

        for client in clients:
            for identity in self._core.registry.identities(client):
                for holder in identity.sessions.values():
                    for service in self._grant.waits_for(holder.session_id):
                        demands[service][client] = Demand(client, holder.session_id, holder.address, holder.agent)
                        if self._core.state.draining:
                            draining.add((client, service))

        if not self._core.signals.alone:
            for elsewhere in await store.waiting_elsewhere(db, clients, self._core.boot):
                for service in elsewhere.services:
                    demands[service].setdefault(elsewhere.demand.client_id, elsewhere.demand)
                    if elsewhere.draining:
                        draining.add((elsewhere.demand.client_id, service))

        return await self._reasons(db, demands, draining)

    async def _reasons(
        self, db: Connection, demands: Mapping[ServiceId, Mapping[ClientId, Demand]], draining: set[WaitKey]
    ) -> dict[WaitKey, Wait]:
        found: dict[WaitKey, Wait] = {}
        for service, of_clients in demands.items():
            if not self._core.catalogue.knows(service):
                continue
            settled = self._core.catalogue.by_id(service).service
            facts = await waits.find_waits(db, service, list(of_clients.values()), settled.settings)
            for client, of_client in facts.items():
                agent = of_clients[client].agent
                wait = wait_of_client(settled, of_client, agent, draining=(client, service) in draining)
                if wait is not None:
                    found[client, service] = wait
        return found

    async def run(self) -> None:
        """Note who waits, for the other nodes, until cancelled."""
        before: Mapping[SessionId, frozenset[ServiceId]] = {}
        while True:
            await asyncio.sleep(NOTE_INTERVAL)
            now = {} if self._core.signals.alone else self._grant.waiting_sessions()
            lasting = {session: services & before.get(session, frozenset()) for session, services in now.items()}
            before = now
            with contextlib.suppress(Unavailable):
                await self._note({session: services for session, services in lasting.items() if services})

    async def _note(self, now: dict[SessionId, frozenset[ServiceId]]) -> None:
        """Write down what has changed."""
        changed = {
            session: now.get(session, frozenset())
            for session in now.keys() | self._noted.keys()
            if now.get(session) != self._noted.get(session)
        }
        if changed:
            async with self._core.database.connection() as db:
                await store.note_waits(db, changed)
            self._noted = now
