"""Tell or close the sessions of this node when clients, services, notices or tokens have changed, here or elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.membership import Memberships
from coordinator.flow.notices import Notices
from coordinator.flow.signal_types import (
    ClientChanged,
    NoticeChanged,
    ServiceReloaded,
    ServicesChanged,
    SignalsMissed,
    TokenEnded,
)
from coordinator.model import ClientId
from coordinator.serve.background_tasks import BackgroundTasks
from coordinator.serve.open_sessions import OpenSessions
from coordinator.store import tokens
from coordinator.wire.client import ServiceChanged
from coordinator.wire.frames import Close

TOKEN_CHECK_INTERVAL = 2.0
"""Seconds between two looks at whether the tokens by which sessions live are still good."""


class ChangeListener:
    """Reads clients and services again after a signal that they have changed, and closes sessions of revoked tokens."""

    def __init__(
        self,
        core: Core,
        grant: Grant,
        memberships: Memberships,
        notices: Notices,
        sessions: OpenSessions,
        background: BackgroundTasks,
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._signals = core.signals
        self._grant = grant
        self._memberships = memberships
        self._notices = notices
        self._sessions = sessions
        self._background = background

    def listen(self) -> None:
        """Subscribe to the signals of changes."""
        signals = self._signals
        signals.on(ClientChanged, self._on_client)
        signals.on(ServicesChanged, self._on_services)
        signals.on(NoticeChanged, self._on_notice)
        signals.on(TokenEnded, self._on_token)
        signals.on(SignalsMissed, self._on_missed)
        signals.on(ServiceReloaded, self._on_service_reloaded)

    async def run(self) -> None:
        """End sessions whose tokens expire, or were revoked while a signal was lost; until cancelled."""
        while True:
            await asyncio.sleep(TOKEN_CHECK_INTERVAL)
            with contextlib.suppress(Unavailable):
                await self._end_sessions_of_ended_tokens()

    async def _end_sessions_of_ended_tokens(self) -> None:
        sessions = self._sessions.of_token()
        if not sessions:
            return

        async with self._database.connection() as db:
            good = await tokens.good_among(db, [session.token_id for session in sessions if session.token_id])
        for session in sessions:
            if session.token_id not in good:
                session.end(Close.DEACTIVATED, "the token has expired or was revoked")

    def _on_services(self, changed: ServicesChanged) -> None:
        self._background.begin(self.reload_services())

    def _on_missed(self, missed: SignalsMissed) -> None:
        self._background.begin(self._resync())

    def _on_client(self, changed: ClientChanged) -> None:
        if changed.unregistered:
            for identity in self._registry.identities(changed.client):
                identity.registered = False
        self._background.begin(self._reload(changed.client))

    async def _reload(self, client: ClientId) -> None:
        """Read a client's memberships again; in a service that it has joined, it may be told what it was not before."""
        await _until_done(partial(self._memberships.reload, client))
        self._notices.tell_client(client)

    def _on_notice(self, changed: NoticeChanged) -> None:
        self._background.begin(_until_done(partial(self._notices.refresh, changed.number)))

    async def _resync(self) -> None:
        """Read again all that signals tell of, since some may have been missed."""
        for client in {identity.client_id for identity in self._registry.identities()}:
            await self._reload(client)

        with contextlib.suppress(Unavailable):
            await self._end_sessions_of_ended_tokens()

        await self.reload_services()
        await _until_done(self._notices.load)

    async def reload_services(self) -> None:
        """Read the services again; clients are told of each that has changed."""
        with contextlib.suppress(Unavailable):  # it is read again within a second
            async with self._database.connection() as db:
                await self._catalogue.load(db)

    def _on_service_reloaded(self, reloaded: ServiceReloaded) -> None:
        entry = self._catalogue.by_id(reloaded.service)
        push = ServiceChanged(service=entry.service.name, state=entry.service.state)
        for session in list(self._sessions.clients):
            if session.welcomed:
                session.push(push)
        if entry.service.state == "revoked":
            self._grant.close(entry.service.service_id)
        self._grant.reloaded(entry.service.service_id)

    def _on_token(self, revoked: TokenEnded) -> None:
        for session in self._sessions.of_token(revoked.token_id):
            session.end(Close.DEACTIVATED, "the token was revoked")


async def _until_done(read: Callable[[], Awaitable[None]]) -> None:
    """Read something of the database, however long it is away."""
    while True:
        try:
            await read()
        except Unavailable:
            await asyncio.sleep(1.0)
        else:
            return
