"""What the sessions here are told, or closed for, when this node or another has changed something."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from coordinator.errors import Unavailable
from coordinator.flow.catalogue import Catalogue, Entry
from coordinator.flow.grant import Grant
from coordinator.flow.membership import Memberships
from coordinator.flow.session_registry import SessionRegistry
from coordinator.flow.signals import Signals
from coordinator.model import ClientId
from coordinator.serve.background_tasks import BackgroundTasks
from coordinator.serve.listener import Listener
from coordinator.store import tokens
from coordinator.store.pool import Database
from coordinator.wire.client import ServiceChanged
from coordinator.wire.frames import Close


class ChangeListener:
    """Reads again what a signal says has changed: clients, services, tokens."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        registry: SessionRegistry,
        grant: Grant,
        memberships: Memberships,
        listener: Listener,
        background: BackgroundTasks,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._registry = registry
        self._grant = grant
        self._memberships = memberships
        self._listener = listener
        self._background = background

    def hear(self, signals: Signals) -> None:
        """From now on."""
        signals.on("client", self._on_client)
        signals.on("services", lambda signal: self._background.begin(self.reload_services()))
        signals.on("token", self._on_token)
        signals.resync = lambda: self._background.begin(self._resync())
        self._catalogue.changed = self._on_service

    def _on_client(self, signal: dict[str, Any]) -> None:
        client = ClientId(signal["client"])
        if signal.get("unregistered"):
            for identity in self._registry.identities(client):
                identity.registered = False
        self._background.begin(self._reload(client))

    async def _reload(self, client: ClientId) -> None:
        while True:
            try:
                await self._memberships.reload(client)
            except Unavailable:
                await asyncio.sleep(1.0)
            else:
                return

    async def _resync(self) -> None:
        """Signals may have been missed: read again whatever they tell of."""
        for client in {identity.client_id for identity in self._registry.identities()}:
            await self._reload(client)
        with contextlib.suppress(Unavailable):
            for one in self._listener.of_token():
                async with self._database.connection() as db:
                    good = one.token_id is not None and await tokens.still_good(db, one.token_id)
                if not good:
                    one.end(Close.DEACTIVATED, "the token was revoked")
        await self.reload_services()

    async def reload_services(self) -> None:
        """Read the services again; each that has changed is told of."""
        with contextlib.suppress(Unavailable):  # it is read again within a second
            async with self._database.connection() as db:
                await self._catalogue.load(db)

    def _on_service(self, entry: Entry) -> None:
        push = ServiceChanged(service=entry.service.name, state=entry.service.state)
        for session in list(self._listener.sessions):
            if session.welcomed:
                session.push(push)
        if entry.service.state == "revoked":
            self._grant.close(entry.service.service_id)
        self._grant.wake(entry.service.service_id)

    def _on_token(self, signal: dict[str, Any]) -> None:
        for one in self._listener.of_token(signal["token"]):
            one.end(Close.DEACTIVATED, "the token was revoked")
