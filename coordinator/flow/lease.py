"""Renew the lease of a node, and free the buckets of nodes whose lease ran out.  protocol.md, "Life of a bucket" """

from __future__ import annotations

import asyncio

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.release import Releases
from coordinator.observe.node_load import NodeLoadMeter
from coordinator.store import activity, claims, nodes
from coordinator.store.pool import Connection

log = structlog.get_logger()

RENEW_EVERY = 5.0
"""Seconds between renewals; a third of the lease if that is less."""

GIVE_UP_AFTER = 0.8
"""The share of its lease after which a node that cannot renew it gives up, before others free its buckets."""


class Lease:
    """Renews the lease of this node, and frees the buckets of nodes whose lease ran out."""

    def __init__(self, core: Core, releases: Releases, load: NodeLoadMeter) -> None:
        self._core = core
        self._releases = releases
        self._load = load
        self._length = core.settings.node_lease
        self._renewed = 0.0

    async def take_over_from_former_boots(self) -> None:
        """Free the buckets of earlier boots of this node, which have ended, since it has started again.

        Raises:
            Unavailable: the database is away.
        """
        async with self._core.database.connection() as db:
            former = await nodes.end_former_boots(db, self._core.settings.node_name, self._core.boot)
            if former:
                await activity.note_nodes(db, self._core.actor, former, "it started again")
            await self._free_crashed(db)

    async def run(self) -> None:
        """Renew the lease until cancelled."""
        loop = asyncio.get_running_loop()
        self._renewed = loop.time()

        while True:
            try:
                await self._keep()
            except Unavailable:
                # If this node is alone, no other can free its buckets: the sessions stay until the database is back.
                if not self._core.signals.alone and loop.time() > self._renewed + self._length * GIVE_UP_AFTER:
                    self._core.state.lease_lost.set()
            await asyncio.sleep(min(RENEW_EVERY, self._length / 3))

    async def _keep(self) -> None:
        core = self._core
        begun = asyncio.get_running_loop().time()

        async with core.database.connection() as db:
            if await nodes.renew(db, core.boot, self._length, self._load.take()):
                self._renewed = begun
            else:
                log.error("another node declared this one gone")
                core.state.lease_lost.set()

            core.signals.alone = await nodes.others(db, core.boot) == 0
            gone = await nodes.declare_expired_gone(db, core.boot)
            if gone:
                await activity.note_nodes(db, core.actor, gone, "its lease ran out")
                core.events.emit("node", f"{len(gone)} gone: the lease ran out")
            await self._free_crashed(db)

    async def _free_crashed(self, db: Connection) -> None:
        """Free the buckets that sessions of ended nodes held."""
        freed = await claims.release_crashed(db)
        await nodes.end_sessions(db)

        self._releases.wake(bucket.service_id for bucket in freed)
        for bucket in freed:
            self._core.events.emit(
                "lost",
                "taken away: its node is gone",
                client=bucket.client_id,
                service=self._core.catalogue.name_of(bucket.service_id),
                bucket=str(bucket.bucket_id),
            )

        if freed:
            log.warning("freed what crashed nodes held", buckets=len(freed))
