"""The sessions of this node, the identities behind them, and what they hold.

A cache of what Postgres knows, for the sessions of this node only; it may vanish at any moment.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from msgspec import Struct

from coordinator.model import BucketId, ClaimNumber, ClientId, ClientMembership, Health, ItemId, ServiceId, SessionId


class Holder(Protocol):
    """A session as the flow sees it.

    `alive`: its connection is open, as far as is known.  `agent`: its program, as it says.  `push` never waits; `end`
    closes it with a code.
    `told_notices`: the messages of operators that it was told, of those in force; None before its `welcome`.
    """

    session_id: SessionId
    client_id: ClientId
    identity: Identity
    address: str
    agent: str | None
    draining: bool
    told_notices: frozenset[int] | None

    @property
    def alive(self) -> bool: ...

    @property
    def behind_proxy(self) -> bool: ...

    def push(self, message: Struct | bytes) -> None: ...

    def end(self, code: int, reason: str) -> None: ...


@dataclass(slots=True)
class HeldClaim:
    """A bucket that a session of this node holds; `given` has '1' for each item that was handed out."""

    service_id: ServiceId
    bucket_id: BucketId
    claim: ClaimNumber
    holder: Holder
    items: tuple[ItemId, ...]
    given: str
    delivered_at: float
    begun_at: float
    """When its client first had it; earlier than `delivered_at` if it was regranted."""
    submits: int = 0
    """Submits of it that are under way."""
    failed_at: float = -inf
    """When a submit of it could not be carried out, the last time."""


@dataclass(slots=True)
class WorkMoments:
    """The moments at which a client last submitted results in a service, and last asked for more while hoarding.

    On this node, in seconds of its clock that never goes back; 0: not yet.  `proven` are the buckets that it held here
    when it was last served, the most since anything was heard by which it may have to wait, or may hold less.
    `refusal_told`: when a submit of its that was refused last became an event.
    """

    submitted: float = 0.0
    hoarded: float = 0.0
    proven: int = 0
    refusal_told: float = -math.inf


@dataclass(slots=True, eq=False)
class Identity:
    """One client id with one secret, however many sessions it has here.

    `arriving` counts hellos, `leaving` releases of ended sessions, that are still under way.  `readings_begun` counts
    readings of what the database says of it, and what stands here is of the one with the number `newest_reading`.
    """

    client_id: ClientId
    secret_hash: bytes
    registered: bool = False
    deactivated: str | None = None
    memberships: dict[ServiceId, ClientMembership] = field(default_factory=dict)
    sessions: dict[SessionId, Holder] = field(default_factory=dict)
    held: dict[BucketId, HeldClaim] = field(default_factory=dict)
    moments: dict[ServiceId, WorkMoments] = field(default_factory=dict)
    readings_begun: int = 0
    newest_reading: int = 0
    arriving: int = 0
    leaving: int = 0
    left: asyncio.Event | None = None
    """Set when no release is under way any more; there only while one is."""

    def works_for(self, service: ServiceId) -> bool:
        """Tell whether work of this service may go to it."""
        membership = self.memberships.get(service)
        return (
            self.registered
            and self.deactivated is None
            and membership is not None
            and membership.joined
            and membership.inactive is None
        )

    def begin_reading(self) -> int:
        """Return the number of a reading of what the database says that begins now."""
        self.readings_begun += 1
        return self.readings_begun

    def end_reading(
        self, number: int, registered: bool, deactivated: str | None, memberships: Iterable[ClientMembership]
    ) -> None:
        """Take what was read, unless a reading that began later was faster."""
        if number < self.newest_reading:
            return
        self.newest_reading = number
        self.registered = registered
        self.deactivated = deactivated
        self.memberships = {membership.service_id: membership for membership in memberships}

    @property
    def is_newcomer(self) -> bool:
        """Whether it had settled nothing that counts in any service, as was last read."""
        return not any(membership.settled for membership in self.memberships.values())

    def health_in(self, service: ServiceId) -> Health:
        """Return its health in a service, as was last read."""
        membership = self.memberships.get(service)
        return "ok" if membership is None else membership.health

    def moments_in(self, service: ServiceId) -> WorkMoments:
        """Return its moments in a service; they can be written to."""
        return self.moments.setdefault(service, WorkMoments())

    def held_in(self, service: ServiceId) -> int:
        """Count the buckets of a service that its sessions of this node hold."""
        return sum(held.service_id == service for held in self.held.values())

    def begin_leaving(self) -> None:
        """Note that a release of what one of its sessions held begins."""
        self.leaving += 1
        if self.left is None:
            self.left = asyncio.Event()

    def end_leaving(self) -> None:
        """Note that such a release is done."""
        self.leaving -= 1
        if self.left is not None and not self.leaving:
            self.left.set()
            self.left = None

    async def settled_down(self) -> None:
        """Wait until no release of its ended sessions is under way."""
        while self.left is not None:
            await self.left.wait()


class SessionRegistry:
    """All sessions of this node that said hello."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, Holder] = {}
        self.oldest: dict[ServiceId, float] = {}
        """For each service a moment before which no claim began that is held here."""
        self._identities: dict[ClientId, dict[bytes, Identity]] = {}

    def arrive(self, client: ClientId, secret_hash: bytes) -> Identity:
        """Return the identity of that client id and secret; a new one if it has no session here.

        Every call is followed by `enter`, or by `turn_away` if the hello was not accepted.
        """
        by_secret = self._identities.setdefault(client, {})
        identity = by_secret.get(secret_hash)
        if identity is None:
            identity = by_secret[secret_hash] = Identity(client, secret_hash)
        identity.arriving += 1
        return identity

    def turn_away(self, identity: Identity) -> None:
        """Note that a hello was not accepted."""
        identity.arriving -= 1
        self.forget(identity)

    def identities(self, client: ClientId | None = None) -> Iterator[Identity]:
        """Go through all identities here, or those of one client id (at most one of them is registered)."""
        if client is not None:
            yield from list(self._identities.get(client, {}).values())
        else:
            for by_secret in list(self._identities.values()):
                yield from list(by_secret.values())

    def enter(self, holder: Holder) -> None:
        """Note that a session has said hello."""
        holder.identity.arriving -= 1
        self.sessions[holder.session_id] = holder
        holder.identity.sessions[holder.session_id] = holder

    def leave(self, holder: Holder) -> list[HeldClaim]:
        """Note that a session has ended; returns what it held."""
        identity = holder.identity
        self.sessions.pop(holder.session_id, None)
        identity.sessions.pop(holder.session_id, None)

        gone = [held for held in identity.held.values() if held.holder is holder]
        for held in gone:
            del identity.held[held.bucket_id]
        return gone

    def forget(self, identity: Identity) -> None:
        """Drop an identity that has no session and no release under way any more."""
        if not (identity.sessions or identity.leaving or identity.arriving):
            by_secret = self._identities.get(identity.client_id, {})
            by_secret.pop(identity.secret_hash, None)
            if not by_secret:
                self._identities.pop(identity.client_id, None)

    def hold(self, held: HeldClaim) -> None:
        """Note that a session holds a bucket."""
        held.holder.identity.held[held.bucket_id] = held
        self.oldest[held.service_id] = min(self.oldest.get(held.service_id, held.begun_at), held.begun_at)

    def held(self, client: ClientId, bucket: BucketId) -> HeldClaim | None:
        """Return a bucket if a session of that client holds it here."""
        for identity in self.identities(client):
            found = identity.held.get(bucket)
            if found is not None:
                return found
        return None

    def drop(self, client: ClientId, bucket: BucketId, claim: ClaimNumber) -> HeldClaim | None:
        """Note that a claim is over; returns the bucket if a session here held it under that claim."""
        held = self.held(client, bucket)
        if held is None or held.claim != claim:
            return None
        return held.holder.identity.held.pop(bucket)

    def begun_before(self, service: ServiceId, moment: float) -> list[HeldClaim]:
        """Return the claims of a service that are held here and began before that moment.

        Costs a look at all that is held, but only once some claim may be that old.
        """
        if self.oldest.get(service, moment) >= moment:
            return []
        of_service = [held for held in self.all_held() if held.service_id == service]
        self.oldest.pop(service, None)
        if of_service:
            self.oldest[service] = min(held.begun_at for held in of_service)
        return [held for held in of_service if held.begun_at < moment]

    def all_held(self) -> Iterable[HeldClaim]:
        """Return all buckets that sessions of this node hold."""
        return [held for identity in self.identities() for held in identity.held.values()]
