"""A service comes, changes, rests, goes and comes back, while clients are connected.  protocol.md, "Services" """

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import asyncpg
import structlog

from coordinator.errors import Exists, NotFound, ServiceRevoked, Unavailable
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.release import Releases
from coordinator.model import ServiceId, ServiceState
from coordinator.services import Item
from coordinator.services.settings import merged
from coordinator.store import items
from coordinator.store import services as store
from coordinator.store.pool import Connection
from coordinator.wire import admin as wire

log = structlog.get_logger()

LOOK = 1.0
"""Seconds between looks for what signals may have missed, and for services that come through the catalogue."""

BATCH = 5_000
"""Items that a new service is offered at once: some tens of milliseconds, within which a delete has to wait."""

Fields = dict[str, Any]


class ServiceLife:
    """The steps behind `service.*` that change something, and what goes on behind them."""

    def __init__(self, core: Core, grant: Grant, releases: Releases, plugin_runner: PluginRunner) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._grant = grant
        self._releases = releases
        self._signals = core.signals
        self._plugin_runner = plugin_runner
        self._to_fill = asyncio.Event()

    async def add(self, request: wire.ServiceAdd) -> Fields:
        """A new service; all items of the catalogue that it selects come to wait in it, in the background.

        Raises:
            NotFound: there is no such plugin.
            BadMessage: a setting does not do.
            Exists: the name is taken.
        """
        plugin = self._catalogue.plugins.get(request.plugin)
        if plugin is None:
            raise NotFound(f"There is no plugin {request.plugin!r}.", detail={"path": "$.plugin"})
        settings = merged(plugin, {}, request.settings or {})
        title = plugin.title if request.title is None else request.title
        async with self._database.transaction() as db:
            await store.lock_catalogue(db)
            service = await store.add(db, request.service, request.plugin, title, settings)
            if service is None:
                raise Exists(f"There is a service {request.service!r} already.")
            await store.begin_fill(db, service)
        await self._changed()
        self._to_fill.set()
        return self._shown(request.service)

    async def configure(self, request: wire.ServiceConfigure) -> Fields:
        """Change settings; those that are not named stay, null takes one back to its default.

        Raises:
            NotFound, BadMessage
        """
        async with self._database.transaction() as db:
            row = await self._lock(db, request.service)
            settings = merged(self._catalogue.plugins[row.plugin], row.settings, request.settings)
            await store.configure(db, row.service_id, settings)
        await self._changed()
        return self._shown(request.service)

    async def pause(self, request: wire.ServicePause) -> Fields:
        """Hand out nothing; asks wait, submits count.

        Raises:
            NotFound, ServiceRevoked
        """
        return await self._turn(request.service, "paused")

    async def resume(self, request: wire.ServiceResume) -> Fields:
        """Hand out again.

        Raises:
            NotFound, ServiceRevoked
        """
        return await self._turn(request.service, "active")

    async def _turn(self, name: str, state: ServiceState) -> Fields:
        async with self._database.transaction() as db:
            row = await self._lock(db, name)
            if row.state == "revoked":
                raise ServiceRevoked(f"The service {name} was revoked; restore it first.", scope="service")
            await store.set_state(db, row.service_id, state)
        await self._changed()
        return self._shown(name)

    async def revoke(self, request: wire.ServiceRevoke) -> Fields:
        """Take a service away with all that is held of it; its history stays.

        Raises:
            NotFound
        """
        async with self._database.transaction() as db:
            row = await self._lock(db, request.service)
            await store.set_state(db, row.service_id, "revoked")
        await self._changed()
        await self._grant.all_delivered()
        released = await self._releases.free_service(row.service_id)
        return {**self._shown(request.service), "released": released}

    async def restore(self, request: wire.ServiceRestore) -> Fields:
        """Bring back what was revoked.

        Raises:
            NotFound
        """
        async with self._database.transaction() as db:
            row = await self._lock(db, request.service)
            if row.state == "revoked":
                await store.set_state(db, row.service_id, "active")
        await self._changed()
        self._to_fill.set()
        return self._shown(request.service)

    async def _lock(self, db: Connection, name: str) -> store.ServiceRow:
        row = await store.lock(db, name)
        if row is None:
            raise NotFound(f"There is no service {name!r}.")
        return row

    async def _changed(self) -> None:
        """Here at once, so that the answer tells what is in force; on other nodes soon."""
        async with self._database.connection() as db:
            await self._catalogue.load(db)
        self._signals.tell("services")

    def _shown(self, name: str) -> Fields:
        return service_row(self._catalogue.get(name))

    # In the background

    async def run(self) -> None:
        """Bring new services through the catalogue, and hear what signals may have missed; until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._to_fill.wait()
            self._to_fill.clear()
            try:
                async with self._database.connection() as db:
                    await self._catalogue.load(db)
                    waiting = await store.fills(db)
                await self._free_revoked()
                for service in waiting:
                    if self._catalogue.knows(service):
                        await self._fill(self._catalogue.by_id(service))
            except Unavailable:
                continue
            except asyncpg.PostgresError:
                log.exception("a service could not be filled; trying on")

    async def _free_revoked(self) -> None:
        """A node that had not heard of the revoke may have handed out in between."""
        for entry in self._catalogue.all():
            if entry.service.state == "revoked":
                await self._releases.free_service(entry.service.service_id)

    async def _fill(self, entry: Entry) -> None:
        """Offer the whole catalogue; a crash loses no more than the batch under way."""
        loop = asyncio.get_running_loop()
        while entry.service.state != "revoked":
            begun = loop.time()
            if not await self._fill_batch(entry):
                return
            self._signals.work(entry.service.service_id)
            # Half of the time belongs to the others.
            await asyncio.sleep(loop.time() - begun)
            entry = self._catalogue.by_id(entry.service.service_id)

    async def _fill_batch(self, entry: Entry) -> bool:
        service: ServiceId = entry.service.service_id
        async with self._database.transaction() as db:
            found = await store.next_candidates(db, service, BATCH)
            if not found:
                return False
            chosen = await self._plugin_runner.select(entry, [Item(one.item, one.key, one.attributes) for one in found])
            await items.join(db, service, chosen, 100, 0.0)
        return True


def service_row(entry: Entry) -> Fields:
    """A service as admins see it."""
    service = entry.service
    return {
        "service": service.name,
        "plugin": service.plugin,
        "title": service.title,
        "state": service.state,
        "settings": {**asdict(service.settings), **service.options},
    }
