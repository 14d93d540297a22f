"""From a claim in the database to the hands of a session.  protocol.md, "ask" """

from __future__ import annotations

from time import monotonic

from msgspec import Raw

from coordinator.flow.bucket_builder import frame_of
from coordinator.flow.core import Core
from coordinator.flow.session_registry import HeldClaim, Holder
from coordinator.model import Claimed, ServiceId
from coordinator.wire.client import Bucket, BucketDead

_FLIP = str.maketrans("01", "10")


class Delivery:
    """Notes claims as held, and sends buckets to their holders."""

    def __init__(self, core: Core) -> None:
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._counters = core.counters

    def may_hold(self, holder: Holder, service: ServiceId) -> bool:
        """Tell whether work of a service may go to a session now: it is there, goes on, and works for the service."""
        return (
            holder.session_id in self._registry.sessions
            and not holder.draining
            and holder.alive
            and holder.identity.works_for(service)
        )

    def take_in(self, claimed: Claimed, holder: Holder) -> bool:
        """Note a claim as held; False if its session has ended or lost the right to it meanwhile."""
        service = claimed.service_id
        if not self.may_hold(holder, service) or self._catalogue.by_id(service).service.state == "revoked":
            return False

        self._registry.hold(
            HeldClaim(
                service,
                claimed.bucket_id,
                claimed.claim,
                holder,
                claimed.items,
                claimed.settled.translate(_FLIP),
                now := monotonic(),
                now - claimed.age,
            )
        )
        self._counters.assigned(claimed.client_id, service)
        moments = holder.identity.moments_in(service)
        moments.proven = max(moments.proven, holder.identity.held_in(service))
        return True

    def push(self, claimed: Claimed, holder: Holder) -> None:
        """Send a bucket to its new holder."""
        service = self._catalogue.by_id(claimed.service_id).service
        holder.push(
            Bucket(
                service=service.name,
                bucket_id=str(claimed.bucket_id),
                claim=claimed.claim,
                items=Raw(frame_of(claimed).encode()),
                attempt=claimed.attempts + 1,
                dead_after=service.settings.dead_after,
                release_after=service.settings.release_after,
            )
        )
        if claimed.dead:
            bucket, release_after = str(claimed.bucket_id), service.settings.release_after
            holder.push(BucketDead(bucket_id=bucket, claim=claimed.claim, release_after=release_after))
