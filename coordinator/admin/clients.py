"""The requests `client.…`: list, show, activate, deactivate, forget_secret, export, erase.
protocol.md, "client.list"
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from coordinator.admin import Steps
from coordinator.admin.buckets import bucket_row
from coordinator.errors import NotFound
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.membership import Memberships
from coordinator.flow.personal_data import PersonalData
from coordinator.flow.release import Releases
from coordinator.flow.signal_types import ClientChanged
from coordinator.flow.wait_reasons import waiting_of
from coordinator.flow.wait_view import WaitKey, WaitView
from coordinator.model import ClientId, ServiceId, Wait
from coordinator.stats.rows import Columns, doing_of, filled, made
from coordinator.store import buckets, claims
from coordinator.store import clients as store
from coordinator.wire.admin import clients as wire

MAX_HELD_SHOWN = 1000
"""Buckets that `client.show` names: more than any client may hold."""

MAX_SESSIONS_SHOWN = 100
"""Sessions that `client.show` names, the newest."""

_WORSE = ("ok", "watched", "flagged")


class ClientRequests:
    """Carries out the requests `client.…`."""

    def __init__(
        self,
        core: Core,
        grant: Grant,
        releases: Releases,
        memberships: Memberships,
        personal_data: PersonalData,
        wait_view: WaitView,
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._grant = grant
        self._releases = releases
        self._memberships = memberships
        self._personal_data = personal_data
        self._wait_view = wait_view
        self._signals = core.signals
        self._counters = core.counters

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.ClientList: self.list,
            wire.ClientShow: self.show,
            wire.ClientDeactivate: self.deactivate,
            wire.ClientActivate: self.activate,
            wire.ClientForgetSecret: self.forget_secret,
            wire.ClientExport: self.export,
            wire.ClientErase: self.erase,
        }

    async def list(self, request: wire.ClientList) -> wire.ClientPage:
        """List clients by id.

        Raises:
            NotFound: there is no such service.
        """
        await self._counters.flush(self._database)
        service = self._service(request.service)
        async with self._database.connection() as db:
            found = await store.page(
                db, request.after or "", request.limit, request.state, service, request.search, request.flagged
            )
            waits = await self._wait_view.of(db, [ClientId(row["client_id"]) for row in found])

        rows = await made(lambda row: client_row(row, waits), found)
        return wire.ClientPage(rows=rows, next=rows[-1].client_id if len(rows) == request.limit else None)

    async def show(self, request: wire.ClientShow) -> wire.ClientShown:
        """Show one client with its profiles and the buckets that it holds.

        Raises:
            NotFound
        """
        await self._counters.flush(self._database)
        async with self._database.connection() as db:
            row = await store.find_with_services(db, ClientId(request.client_id))
            if row is None:
                raise _no_client(request.client_id, None)
            waits = await self._wait_view.of(db, [ClientId(request.client_id)])
            held = await buckets.page(db, None, MAX_HELD_SHOWN, None, None, request.client_id)
            sessions = await store.open_sessions(db, ClientId(request.client_id), MAX_SESSIONS_SHOWN)

        return wire.ClientShown(
            **structs.asdict(client_row(row, waits)),
            profiles={membership["service"]: membership["profile"] for membership in row["services"]},
            holds=[bucket_row(bucket, self._catalogue) for bucket in held],
            sessions=[filled(wire.ListedSession, session) for session in sessions],
        )

    async def deactivate(self, request: wire.ClientDeactivate) -> wire.ClientDeactivation:
        """Take a client's work away, in one service or wholly.

        Raises:
            NotFound: there is no such client, service or membership.
        """
        client, service = ClientId(request.client_id), self._service(request.service)
        async with self._database.connection() as db:
            done = await store.deactivate(db, client, service, request.reason or "by an admin")
        if not done:
            raise _no_client(client, service)

        # The claim statement looks at the database, so nothing new goes out; what is out is taken, then all are told.
        await self._grant.all_delivered()
        released = await self._releases.free_client(client, service, claims.DEACTIVATED, "deactivated")
        await self._tell_changed(client)
        return wire.ClientDeactivation(deactivated=1, released=released)

    async def activate(self, request: wire.ClientActivate) -> wire.ClientActivation:
        """Undo a deactivation.

        Raises:
            NotFound: there is no such client, service or membership.
        """
        client, service = ClientId(request.client_id), self._service(request.service)
        async with self._database.connection() as db:
            done = await store.reactivate(db, client, service)
        if not done:
            raise _no_client(client, service)
        await self._tell_changed(client)
        return wire.ClientActivation(activated=1)

    async def forget_secret(self, request: wire.ClientForgetSecret) -> wire.ClientForgotten:
        """Let whoever registers next bind a secret of its own; who has the old one is not registered any more.

        Raises:
            NotFound
        """
        client = ClientId(request.client_id)
        async with self._database.connection() as db:
            if not await store.forget_secret(db, client):
                raise _no_client(client, None)

        try:
            await self._grant.all_delivered()
            released = await self._releases.free_client(client, None, claims.TAKEN, "released")
        finally:
            self._signals.tell(ClientChanged(client))
        await self._memberships.reload(client)
        return wire.ClientForgotten(forgotten=1, released=released)

    async def export(self, request: wire.ClientExport) -> wire.ClientExportPage:
        """Tell a page of what is kept of a client.

        Raises:
            NotFound, BadMessage
        """
        rows, following = await self._personal_data.page(ClientId(request.client_id), request.after, request.limit)
        return wire.ClientExportPage(rows=rows, next=following)

    async def erase(self, request: wire.ClientErase) -> wire.ClientErased:
        """Replace all that tells who a client is by a number.

        Raises:
            NotFound
            ServerUnavailable: a node does not close its sessions.
        """
        erased = await self._personal_data.erase(ClientId(request.client_id))
        request.client_id = erased  # under which it is noted: the name is to stand nowhere
        return wire.ClientErased(erased=erased)

    async def _tell_changed(self, client: ClientId) -> None:
        """Tell the other nodes, which follow soon; on this one it is in force when the admin is answered."""
        self._signals.tell(ClientChanged(client))
        await self._memberships.reload(client)

    def _service(self, name: str | None) -> ServiceId | None:
        return None if name is None else self._catalogue.named(name).service.service_id


def _no_client(client: str, service: ServiceId | None) -> NotFound:
    return NotFound(f"There is no client {client!r}" + (" in that service." if service else "."))


def client_row(row: Columns, waits: Mapping[WaitKey, Wait]) -> wire.ListedClient:
    """A client as admins see it, and why it waits in some services; its health is the worst of them."""
    worst = max(row["services"], key=lambda membership: _WORSE.index(membership["health"]), default=None)
    return filled(
        wire.ListedClient,
        row,
        health=worst["health"] if worst else "ok",
        reason=worst["reason"] if worst else None,
        doing=doing_of(row, {one["service_id"]: one["service"] for one in row["services"]}, waits),
        services=[
            _membership_row(membership, waits.get((row["client_id"], membership["service_id"])))
            for membership in row["services"]
        ],
    )


def _membership_row(row: Columns, wait: Wait | None) -> wire.ListedMembership:
    active = row["joined"] and row["inactive"] is None
    return filled(wire.ListedMembership, row, active=active, waiting=waiting_of(wait))
