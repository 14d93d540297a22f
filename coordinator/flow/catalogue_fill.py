"""A new service comes through the catalogue, behind the request that added it.  protocol.md, "service.add" """

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import asyncpg
import structlog

from coordinator.errors import Unavailable
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.plugin_search import PluginSearch
from coordinator.flow.release import Releases
from coordinator.flow.round_steps import RoundSteps, Step
from coordinator.services import Item
from coordinator.store import adding
from coordinator.store import services as store

log = structlog.get_logger()

FILL_INTERVAL = 1.0
"""Seconds between looks for services to fill, and for what signals may have missed."""

ITEMS_PER_OFFER = 5_000
"""Items that a new service is offered at once: some tens of milliseconds, within which a delete has to wait."""


class CatalogueFill:
    """Offers the items of the catalogue to new services."""

    def __init__(
        self, core: Core, releases: Releases, plugin_runner: PluginRunner, plugin_search: PluginSearch
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._releases = releases
        self._signals = core.signals
        self._plugin_runner = plugin_runner
        self._plugin_search = plugin_search
        self._wanted = asyncio.Event()
        self._steps = RoundSteps()

    def begin(self) -> None:
        """Look at once for services to fill."""
        self._wanted.set()

    async def run(self) -> None:
        """Fill new services, and follow changes that signals may have missed; until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FILL_INTERVAL):
                    await self._wanted.wait()
            self._wanted.clear()

            try:
                async with self._database.connection() as db:
                    await self._catalogue.load(db)
                await self._steps.run(self._steps_of_round())
            except Unavailable:
                continue
            except (asyncpg.PostgresError, ExceptionGroup):
                log.exception("services could not be kept up to date; trying on")

    def _steps_of_round(self) -> Iterator[tuple[str, Step]]:
        yield "unusable services", self._plugin_search.look_for_unusable
        for entry in self._catalogue.all():
            if entry.service.state == "revoked":
                # What a node handed out that had not heard of the revoke.
                service = entry.service.service_id
                yield f"buckets of {entry.service.name}", partial(self._releases.free_service, service)
        for service in self._catalogue.filling:
            if self._catalogue.knows(service):
                entry = self._catalogue.by_id(service)
                yield f"filling {entry.service.name}", partial(self._fill, entry)

    async def _fill(self, entry: Entry) -> None:
        """Offer the whole catalogue; a crash loses no more than the batch under way."""
        loop = asyncio.get_running_loop()
        while entry.service.state != "revoked" and entry.service.settings.enrol == "all":
            begun = loop.time()
            if not await self._offer(entry):
                return
            self._signals.work(entry.service.service_id)

            # It works half of the time at most, so that it does not hold up other work.
            await asyncio.sleep(loop.time() - begun)
            entry = self._catalogue.by_id(entry.service.service_id)

    async def _offer(self, entry: Entry) -> bool:
        """Offer the next items; False if there are none left, or another node offers them."""
        service = entry.service.service_id
        async with self._database.transaction() as db:
            found = await store.next_candidates(db, service, ITEMS_PER_OFFER)
            if not found:
                return False
            offered = [Item(candidate.item, candidate.key, candidate.attributes) for candidate in found]
            chosen = await self._plugin_runner.select(entry, offered)
            await adding.join(db, service, chosen, 100, 0.0)
        return True
