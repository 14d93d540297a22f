"""Finds plugins that are installed while the node runs."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.errors import UnknownSchema
from coordinator.flow.core import Core
from coordinator.flow.own_thread import begin_in_thread
from coordinator.services import Plugin, look_again, tables_of
from coordinator.store import migrate
from coordinator.wording import counted

log = structlog.get_logger()

SEARCH_DEADLINE = 20.0
"""Seconds after which a search is not waited for any more: it imports code from outside the package."""

SEARCH_INTERVAL = 10.0
"""Seconds between two searches for the plugin of a service that another node has added."""

_Found = tuple[dict[str, type[Plugin]], dict[str, str]]


class PluginSearch:
    """Adds plugins to the catalogue that were not there when the node started."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._running: asyncio.Future[_Found] | None = None
        self._reported: set[str] = set()
        self._next = 0.0

    async def look(self) -> dict[str, str]:
        """Add the plugins that can be used; returns why others cannot, each by its name.

        Raises:
            Unavailable
        """
        if self._running is None or self._running.done():
            self._running = begin_in_thread("plugin search", look_again)
        try:
            async with asyncio.timeout(SEARCH_DEADLINE):
                found, faults = await asyncio.shield(self._running)
        except TimeoutError:
            return {}

        for name, plugin in found.items():
            if name in self._catalogue.plugins:
                continue
            if fault := await self._fault_of_tables(plugin):
                faults[name] = fault
            else:
                self._catalogue.plugins[name] = plugin
                log.info("a plugin was found", plugin=name)
        return faults

    async def look_for_unusable(self) -> None:
        """Look, now and then, for what the services need that this node cannot work for; what it lacks is logged once.

        Raises:
            Unavailable
        """
        unusable = self._catalogue.unusable
        clock = asyncio.get_running_loop().time
        if not unusable or clock() < self._next:
            return
        faults = await self.look()
        self._next = clock() + SEARCH_INTERVAL

        async with self._database.connection() as db:
            await self._catalogue.load(db)
        for service, failure in unusable.items():
            if service not in self._reported:
                self._reported.add(service)
                log.error("a service cannot be used here", service=service, error=str(failure), faults=faults or None)

    async def _fault_of_tables(self, plugin: type[Plugin]) -> str | None:
        """Say why a plugin's tables cannot be used; None if they can, or it has none."""
        if plugin.tables is None:
            return None
        try:
            missing = await migrate.pending(self._database, tables_of({plugin.name: plugin}))
        except UnknownSchema as failure:
            return str(failure)
        if not missing:
            return None
        return (
            f"The database lacks {counted(len(missing), 'migration')} of the plugin {plugin.name}: start the nodes "
            "again or, where the database is your own, run coordinator db migrate --database DSN."
        )
