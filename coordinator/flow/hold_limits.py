"""How many buckets a client may have of one ask, and hold; nothing else decides that."""

from __future__ import annotations

from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.session_registry import Identity
from coordinator.model import ClientId, ServiceId
from coordinator.observe import health
from coordinator.store import claims


class HoldLimits:
    """Counts what clients hold in all their sessions, on all nodes, against what they may."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._signals = core.signals

    def of_one_ask(self, identity: Identity, entry: Entry) -> int:
        """Return how many buckets a client may have of one ask."""
        of_ask, _ = health.limits(identity.health_in(entry.service.service_id), entry.service.settings)
        return of_ask

    async def room(self, identity: Identity, entry: Entry) -> int:
        """Return how many buckets more a client may hold; below 0 if it holds more than it may.

        Raises:
            Unavailable: the database is away.
        """
        service = entry.service.service_id
        _, most_held = health.limits(identity.health_in(service), entry.service.settings)
        if self._signals.alone:
            return most_held - identity.held_in(service)
        return most_held - await self._held(identity.client_id, service)

    def checked_at_claim(self, identity: Identity, service: ServiceId) -> bool:
        """Tell whether a client is held to its limit when it is served, and not only when it asks.

        So a flagged one is: it may have asked for more before it was flagged.
        """
        return identity.health_in(service) == "flagged"

    async def may_hold_another(self, identity: Identity, entry: Entry) -> bool:
        """Tell whether a client that is `checked_at_claim` may be served one more bucket.

        Raises:
            Unavailable: the database is away.
        """
        service = entry.service.service_id
        _, most_held = health.limits(identity.health_in(service), entry.service.settings)
        return await self._held(identity.client_id, service) < most_held

    async def _held(self, client: ClientId, service: ServiceId) -> int:
        async with self._database.connection() as db:
            return await claims.held_count(db, client, service)
