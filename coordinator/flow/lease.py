"""Renew the lease of a node, and free the buckets of nodes whose lease ran out.  protocol.md, "Life of a bucket" """

from __future__ import annotations

import asyncio
from math import inf

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.release import Releases
from coordinator.flow.round_steps import RoundSteps
from coordinator.observe.node_load import NodeLoadMeter
from coordinator.store import activity, claims, nodes

log = structlog.get_logger()

RENEW_EVERY = 5.0
"""Seconds between renewals; a third of the lease if that is less."""

LOOK_AGAIN_AFTER = 0.5
"""Seconds from the end of another node's lease to the look at it, and to a second look if something was in the way."""

GIVE_UP_AFTER = 0.8
"""The share of its lease after which a node that cannot renew it gives up, before others free its buckets."""


class Lease:
    """Renews the lease of this node, and frees the buckets of nodes whose lease ran out."""

    def __init__(self, core: Core, releases: Releases, load: NodeLoadMeter) -> None:
        self._core = core
        self._releases = releases
        self._load = load
        self._steps = RoundSteps()
        self._length = core.settings.node_lease
        self._renewed = 0.0
        self._look_again_in = inf
        """Seconds from the last renewal until another node's lease ends, or locks that were in the way are gone."""

    async def take_over_from_former_boots(self) -> None:
        """Free the buckets of earlier boots of this node, which have ended, since it has started again.

        Raises:
            Unavailable: the database is away.
        """
        async with self._core.database.connection() as db:
            name, reason = self._core.settings.node_name, "it was killed, and has started again"
            former = await nodes.end_former_boots(db, name, self._core.boot, reason)
            if former:
                await activity.note_nodes(db, self._core.actor, former, "it started again")
                self._core.events.emit("node", f"{name} is gone: {reason}", "warning")
        await self._free_crashed()

    async def run(self) -> None:
        """Renew the lease until cancelled."""
        self._renewed = asyncio.get_running_loop().time()

        while True:
            renewal = asyncio.ensure_future(self._keep())
            try:
                # The lease may be lost before a database that stands still lets the statement fail.
                while not renewal.done() and (left := self._left()) > 0:
                    await asyncio.wait([renewal], timeout=left)
                if not renewal.done():
                    self._give_up()
                await renewal
            except Unavailable:
                if self._left() <= 0:
                    self._give_up()
            finally:
                renewal.cancel()
            await asyncio.sleep(min(RENEW_EVERY, self._length / 3, self._look_again_in))

    def _left(self) -> float:
        """The seconds until this node gives up."""
        return self._renewed + self._length * GIVE_UP_AFTER - asyncio.get_running_loop().time()

    def _give_up(self) -> None:
        """End the node; if it is alone, no other can free its buckets, and it waits for the database."""
        if not self._core.signals.alone:
            self._core.state.lease_lost.set()

    async def _keep(self) -> None:
        core = self._core
        begun = asyncio.get_running_loop().time()

        async with core.database.connection() as db:
            if not await nodes.renew(db, core.boot, self._length, self._load.take()):
                log.error("another node declared this one gone")
                core.state.lease_lost.set()
                return

            self._renewed = begun
            self._load.renewed(asyncio.get_running_loop().time() - begun)
            others, left = await nodes.others(db, core.boot)
            core.signals.alone = others == 0
            self._look_again_in = max(LOOK_AGAIN_AFTER, left + LOOK_AGAIN_AFTER)
            reason = "its lease ran out, so it was killed or does not reach the database"
            gone = await nodes.declare_expired_gone(db, core.boot, reason)
            if gone:
                await activity.note_nodes(db, core.actor, list(gone), "its lease ran out")
                for name in gone.values():
                    core.events.emit("node", f"{name} is gone: {reason}", "warning")
        await self._clear_up()

    async def _clear_up(self) -> None:
        """End and free what ended nodes left behind; this node keeps its lease whatever is wrong with that.

        Raises:
            Unavailable: the database is away.
        """
        try:
            await self._steps.run((("connections", self._end_abandoned), ("buckets", self._free_crashed)))
        except Unavailable:
            raise
        except Exception as fault:
            log.exception("what ended nodes left behind cannot be freed")
            text = f"what ended nodes left behind cannot be freed: {type(fault).__name__}"
            self._core.events.emit("fault", text)

    async def _end_abandoned(self) -> None:
        """End what still holds locks in the database, and answers to nobody."""
        database = self._core.database
        given_up = list(database.given_up)
        async with database.connection() as db:
            ended = await nodes.end_abandoned(db, self._core.boot, given_up)
        database.given_up.difference_update(given_up)
        if ended:
            self._look_again_in = LOOK_AGAIN_AFTER  # what they had locked was passed over
            log.warning("ended connections to the database that nobody answers for", connections=ended)

    async def _free_crashed(self) -> None:
        """Free the buckets that sessions of ended nodes held."""
        async with self._core.database.connection() as db:
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
