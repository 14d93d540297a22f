"""Hello, register, join and the rest of what a client says about itself.  protocol.md, "Client channel" """

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec

from coordinator import credentials
from coordinator.errors import (
    BadMessage,
    BadRegistration,
    ClientDeactivated,
    Forbidden,
    NotJoined,
    Unauthorized,
)
from coordinator.flow.arrivals import Arrivals, read_identities
from coordinator.flow.catalogue import Entry, card_of, membership_of, refuse_strangers
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.release import Releases
from coordinator.flow.session_registry import Holder, Identity
from coordinator.flow.signal_types import ClientChanged
from coordinator.flow.wait_teller import EndOfWait
from coordinator.model import ClientId, ClientMembership, JsonObject, ServiceId, SessionId
from coordinator.store import activity, claims, clients, tokens
from coordinator.store.clients import NewSession
from coordinator.store.pool import Connection
from coordinator.wire import client as wire
from coordinator.wire.client import LostReason
from coordinator.wire.frames import NAME_PATTERN, Close

_NAME = re.compile(NAME_PATTERN)

REPORT_PAUSE = 60.0
"""Seconds that a `report` without `retry_after` means."""

LONGEST_REPORT = 30 * 86_400.0
"""Seconds that a `report` may ask for at most: a client that cannot work for longer had better leave."""


_Choices = Annotated[list[wire.Choice], msgspec.Meta(max_length=100)]
"""The services of one `register`."""


class Memberships:
    """Knows which client an identity is, and which services it works for."""

    def __init__(
        self, core: Core, arrivals: Arrivals, grant: Grant, releases: Releases, plugin_runner: PluginRunner
    ) -> None:
        self._arrivals = arrivals
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._grant = grant
        self._releases = releases
        self._plugin_runner = plugin_runner
        self._signals = core.signals
        self._boot = core.boot
        self._state = core.state
        self._events = core.events

    async def hello(self, hello: wire.Hello, session: SessionId, address: str) -> tuple[Identity, dict[str, int]]:
        """Find the identity of a session, and its own counters; the session enters the registry next.

        An unknown client id is welcome.

        Raises:
            Unauthorized: it is bound to another secret.
            ClientDeactivated: by an admin, as a whole.
            Unavailable
        """
        client, secret_hash = ClientId(hello.client_id), credentials.hash_secret(hello.secret)
        identity = self._registry.arrive(client, secret_hash)

        try:
            counters = await self._arrivals.add(identity, session, address, hello.agent)
        except BaseException:
            self._registry.turn_away(identity)
            raise
        return identity, counters

    async def reload(self, client: ClientId) -> None:
        """Read again what the database says of a client; somebody has changed it.

        Raises:
            Unavailable
        """
        for identity in list(self._registry.identities(client)):
            async with self._database.connection() as db:
                await read_identities(db, [identity])

            for service, membership in list(identity.memberships.items()):
                if identity.works_for(service):
                    self._grant.wake(service)
                    # It may wait less long, or hold more, than this node was told.
                    self._grant.wait_ended(client, service)
                    self._grant.lost(client, service)
                    continue
                for session in list(identity.sessions.values()):
                    self._grant.drop(session, service, *_end_of_wait(membership))
                if membership.inactive == "admin" or not membership.joined:
                    # Something may have been claimed here while the change was made elsewhere.
                    way = claims.DEACTIVATED if membership.inactive == "admin" else claims.LEFT
                    reason: LostReason = "deactivated" if membership.inactive == "admin" else "released"
                    await self._grant.all_delivered()
                    if identity.held_in(service):
                        await self._releases.free_client(client, service, way, reason)

            if identity.deactivated is not None:
                await self._grant.all_delivered()
                if identity.held:
                    await self._releases.free_client(client, None, claims.DEACTIVATED, "deactivated")
                for holder in list(identity.sessions.values()):
                    holder.end(Close.DEACTIVATED, "deactivated")

    def changed(self, client: ClientId) -> None:
        """Let all nodes read again what the database says of a client."""
        self._signals.tell(ClientChanged(client))

    async def register(self, register: wire.Register, by: Holder) -> wire.Registered:
        """Make an identity a client; again with the same secret is success.

        Raises:
            BadRegistration: a detail is missing or wrong; `detail.path` says which.
            Unauthorized: the identity is bound to another secret, or the enrolment token is wrong.
            Forbidden: registration is closed.
            UnknownService, ServiceRevoked, Unavailable
        """
        screen_name = _name(register.screen_name, "$.screen_name")
        choices = await self._choices(register.services)
        identity = by.identity

        async with self._database.transaction() as db:
            known = await clients.find(db, by.client_id)
            again = (
                known is not None
                and known.registered
                and known.secret_hash is not None
                and credentials.same(known.secret_hash, identity.secret_hash)
            )
            if not again:
                await self._check_enrolment(db, register.enrolment_token, by)
            if not await clients.register(db, by.client_id, identity.secret_hash, screen_name):
                raise Unauthorized("That client id is bound to another secret.", close_code=Close.BAD_CREDENTIALS)
            if choices:
                await clients.join(db, by.client_id, _as_json(choices))
            await clients.begin_session(db, NewSession(by.session_id, by.client_id, by.address, by.agent), self._boot)
            if not again:
                await activity.note(db, by.client_id, "client.register", by.client_id, "ok")
        async with self._database.connection() as db:
            await read_identities(db, [identity])

        if not again:
            self._events.emit("register", f"registered as {screen_name}", client=by.client_id)
        self.changed(by.client_id)
        for entry, _ in choices:
            self._grant.wake(entry.service.service_id)
        return wire.Registered(
            client_id=by.client_id,
            services=[membership_of(entry, identity) for entry in self._catalogue.all()],
        )

    async def _check_enrolment(self, db: Connection, token: object, by: Holder) -> None:
        """Refuse a new client that may not register here; an enrolment token is used up."""
        registration = self._state.settings.access_to("registration", behind_proxy=by.behind_proxy)
        if registration == "open":
            return
        if registration == "closed":
            raise Forbidden("Registration is closed here.")
        if token is None:
            raise BadRegistration("An enrolment token is needed.", detail={"path": "$.enrolment_token"})
        if not isinstance(token, str) or not token:
            raise BadRegistration("An enrolment token is a string.", detail={"path": "$.enrolment_token"})
        if not await tokens.use_enrolment(db, credentials.hash_token(token)):
            raise Unauthorized("That enrolment token is not good.")

    async def _choices(self, services: object) -> list[tuple[Entry, JsonObject]]:
        """Read which services a client wants to work for, each with its profile."""
        if services is None:
            return []
        try:
            choices = msgspec.convert(services, _Choices)
        except msgspec.ValidationError as failure:
            what, _, inner = str(failure).partition(" - at `$")
            raise BadRegistration(f"services: {what}.", detail={"path": "$.services" + inner.rstrip("`")}) from None

        names = [choice.service for choice in choices]
        if len(set(names)) < len(names):
            raise BadRegistration("A service stands twice.", detail={"path": "$.services"})

        found = []
        for place, choice in enumerate(choices):
            entry = self._catalogue.living(choice.service)
            profile = choice.profile or {}
            try:
                await self._plugin_runner.refuse_profile(entry, profile, f"$.services[{place}].profile")
            except BadMessage as failure:
                raise BadRegistration(failure.message, detail=failure.detail) from None
            found.append((entry, profile))
        return found

    async def unregister(self, unregister: wire.Unregister, by: Holder) -> wire.Unregistered:
        """End a registration, for all sessions of the identity.

        Raises:
            BadRegistration: it names another client.
            Unavailable
        """
        if unregister.client_id is not None and unregister.client_id != by.client_id:
            raise BadRegistration("A client unregisters itself.", detail={"path": "$.client_id"})
        identity = by.identity
        identity.registered = False
        self._grant.withdraw(by)
        for session in list(identity.sessions.values()):
            self._grant.drop(session, None, "served", "another session of the client has unregistered")

        try:
            async with self._database.transaction() as db:
                await clients.unregister(db, by.client_id)
                await activity.note(db, by.client_id, "client.unregister", by.client_id, "ok")
        except BaseException:
            identity.registered = True  # as far as is known; the client repeats it
            raise

        def tell() -> None:
            self._signals.tell(ClientChanged(by.client_id, unregistered=True))

        try:
            async with self._database.connection() as db:
                await read_identities(db, [identity])
            await self._grant.all_delivered()
            self._events.emit("register", "unregistered", client=by.client_id)
            # All nodes are told once the buckets are free: a node that is told takes what is still held, and this
            # answer would count too little.  But before its sessions hear what they lost: then they are not registered.
            released = await self._releases.free_client(
                by.client_id, None, claims.UNREGISTERED, "released", spare=by, freed=tell
            )
        except BaseException:
            tell()
            raise
        return wire.Unregistered(released=released)

    def services(self, by: Holder) -> wire.OfferedServices:
        """List all services, with all that a client needs to know of them."""
        return wire.OfferedServices(services=[card_of(entry, by.identity) for entry in self._catalogue.all()])

    async def join(self, join: wire.Join, by: Holder) -> wire.Joined:
        """Make a client a member of a service.

        Raises:
            UnknownService, ServiceRevoked
            BadMessage: the profile has not the service's shape.
            ClientDeactivated: an admin took this service from the client.
            Unavailable
        """
        entry = self._catalogue.living(join.service)
        service = entry.service.service_id
        known = by.identity.memberships.get(service)
        if known is not None and known.inactive == "admin":
            raise ClientDeactivated(
                f"An admin made this client inactive in {join.service}.",
                detail={"reason": "admin"},
                scope="client",
            )

        profile = join.profile or {}
        await self._plugin_runner.refuse_profile(entry, profile, "$.profile")
        async with self._database.connection() as db:
            await clients.join(db, by.client_id, _as_json([(entry, profile)]))
            await read_identities(db, [by.identity])
        self.changed(by.client_id)
        self._grant.wake(service)
        return wire.Joined(service=join.service)

    async def leave(self, leave: wire.Leave, by: Holder) -> wire.Left:
        """End a membership; buckets of that service that the client holds go back.

        Raises:
            UnknownService, ServiceRevoked, NotJoined, Unavailable
        """
        entry = self._catalogue.living(leave.service)
        service = entry.service.service_id
        known = by.identity.memberships.get(service)
        if known is None or not known.joined:
            raise NotJoined(f"This client has not joined {leave.service}.")

        async with self._database.connection() as db:
            await clients.leave(db, by.client_id, service)
            await read_identities(db, [by.identity])
        self._grant.withdraw(by, service)
        for session in by.identity.sessions.values():
            self._grant.drop(session, service, "served", "another session of the client has left the service")
        await self._grant.all_delivered()
        released = await self._releases.free_client(by.client_id, service, claims.LEFT, "released")
        self.changed(by.client_id)
        return wire.Left(service=leave.service, released=released)

    async def activate(self, activate: wire.Activate, by: Holder) -> wire.Activated:
        """Bring back a membership that was idle.

        Raises:
            UnknownService, ServiceRevoked, ClientDeactivated, NotJoined, Unavailable
        """
        entry = self._catalogue.living(activate.service)
        service = entry.service.service_id
        known: ClientMembership | None = by.identity.memberships.get(service)
        if known is None or known.inactive != "idle" or not known.joined:
            refuse_strangers(entry, by.identity, idle_may=True)

        async with self._database.connection() as db:
            await clients.activate(db, by.client_id, service)
            await read_identities(db, [by.identity])
        self.changed(by.client_id)
        self._grant.wake(service)
        return wire.Activated(service=activate.service)

    async def report(self, report: wire.Report, by: Holder) -> wire.Reported:
        """Let a client that cannot work wait for a while; that is no fault of its own.

        Raises:
            UnknownService, ServiceRevoked, ClientDeactivated, NotJoined, Unavailable
        """
        entry = self._catalogue.get(report.service)
        refuse_strangers(entry, by.identity, idle_may=False)
        seconds = REPORT_PAUSE if report.retry_after is None else min(report.retry_after, LONGEST_REPORT)
        async with self._database.connection() as db:
            had_reported = await clients.report(db, by.client_id, entry.service.service_id, seconds, report.kind)
        if not had_reported:
            cause = "its API takes no more" if report.kind == "upstream_limited" else "it cannot work"
            text = f"gets nothing for {seconds:.0f} s, as it reported: {cause}"
            self._events.emit("limited", text, client=by.client_id, service=report.service)
        by.identity.moments_in(entry.service.service_id).proven = 0
        self._grant.wait_ended(by.client_id, entry.service.service_id)  # it may be shorter than the one before
        if not self._signals.alone:
            self.changed(by.client_id)
        return wire.Reported(service=report.service, retry_after=seconds)


def _end_of_wait(membership: ClientMembership) -> tuple[EndOfWait, str]:
    """Return how the wait of a client ends that works for a service no more, and why."""
    if membership.inactive is None or not membership.joined:
        return "served", "the client has left the service"
    return "deactivated", f"it is inactive in the service: {membership.inactive}"


def _as_json(choices: Sequence[tuple[Entry, JsonObject]]) -> dict[ServiceId, str]:
    return {entry.service.service_id: msgspec.json.encode(profile).decode() for entry, profile in choices}


def _name(value: object, path: str) -> str:
    if value is None:
        raise BadRegistration(f"{path[2:]} is missing.", detail={"path": path})
    if not isinstance(value, str) or not _NAME.match(value) or value.endswith("\n"):
        raise BadRegistration(f"{path[2:]} is 1 to 64 letters, digits, or one of _ . -", detail={"path": path})
    return value
