"""The requests `service.…`: list, show, add, configure, pause and resume, revoke and restore.

protocol.md, "service.list"
"""

from __future__ import annotations

from dataclasses import asdict

from msgspec import UNSET, structs

from coordinator.admin import Steps
from coordinator.errors import Exists, NotFound, ServiceRevoked
from coordinator.flow.catalogue import Entry
from coordinator.flow.catalogue_fill import CatalogueFill
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_search import PluginSearch
from coordinator.flow.release import Releases
from coordinator.flow.signal_types import ServicesChanged
from coordinator.model import ServiceState
from coordinator.services import Plugin
from coordinator.services.settings import merged, settings_schema
from coordinator.store import services as store
from coordinator.store import statistics
from coordinator.store.pool import Connection
from coordinator.wire.admin import services as wire


class ServiceRequests:
    """Carries out the requests `service.…`."""

    def __init__(
        self,
        core: Core,
        grant: Grant,
        releases: Releases,
        catalogue_fill: CatalogueFill,
        plugin_search: PluginSearch,
    ) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._grant = grant
        self._releases = releases
        self._signals = core.signals
        self._catalogue_fill = catalogue_fill
        self._plugin_search = plugin_search

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.ServiceList: self.list,
            wire.ServicePlugins: self.plugins,
            wire.ServiceShow: self.show,
            wire.ServiceAdd: self.add,
            wire.ServiceConfigure: self.configure,
            wire.ServicePause: self.pause,
            wire.ServiceResume: self.resume,
            wire.ServiceRevoke: self.revoke,
            wire.ServiceRestore: self.restore,
        }

    async def list(self, request: wire.ServiceList) -> wire.ServicePage:
        """List all services, by name."""
        rows = sorted((service_row(entry) for entry in self._catalogue.all()), key=lambda row: row.service)
        left = [row for row in rows if request.after is None or row.service > request.after]
        page = left[: request.limit]
        return wire.ServicePage(rows=page, next=page[-1].service if len(left) > len(page) else None)

    async def plugins(self, request: wire.ServicePlugins) -> wire.PluginPage:
        """List the plugins that this node has, by name, with the services that are made of them.

        Those that were installed since it started are found by this.
        """
        await self._plugin_search.look()
        services = sorted(self._catalogue.all(), key=lambda entry: entry.service.name)
        rows = [
            wire.ListedPlugin(
                plugin=name,
                title=plugin.title,
                settings=list(plugin.Settings.__struct_fields__),
                services=[entry.service.name for entry in services if entry.service.plugin == name],
                settings_schema=settings_schema(plugin) if request.schemas else UNSET,
            )
            for name, plugin in sorted(self._catalogue.plugins.items())
            if name > (request.after or "")
        ]
        page = rows[: request.limit]
        return wire.PluginPage(rows=page, next=page[-1].plugin if len(rows) > len(page) else None)

    async def show(self, request: wire.ServiceShow) -> wire.ServiceShown:
        """Show one service, with its items and buckets by state.

        Raises:
            NotFound
        """
        entry = self._catalogue.named(request.service)
        async with self._database.connection() as db:
            states = await statistics.state(db)
        counts = service_counts(entry, states.get(entry.service.service_id))
        schema = entry.card["result_schema"]
        return wire.ServiceShown(**structs.asdict(service_row(entry)), counts=counts, result_schema=schema)

    async def add(self, request: wire.ServiceAdd) -> wire.ServiceAnswer:
        """Add a service; all items of the catalogue that it selects come to wait in it, in the background.

        With `enrol: named` the catalogue is left alone.

        Raises:
            NotFound: there is no such plugin.
            BadMessage: a setting does not do.
            Exists: the name is taken.
        """
        plugin = await self._plugin(request.plugin)
        settings = merged(plugin, {}, request.settings or {})
        title = plugin.title if request.title is None else request.title

        async with self._database.transaction() as db:
            await store.lock_catalogue(db)
            service = await store.add(db, request.service, request.plugin, title, settings)
            if service is None:
                raise Exists(f"There is a service {request.service!r} already.")
            if {**plugin.defaults, **settings}.get("enrol", "all") == "all":
                await store.begin_fill(db, service)

        await self._tell_changed()
        self._catalogue_fill.begin()
        return self._answer(request.service)

    async def _plugin(self, name: str) -> type[Plugin]:
        """Return a plugin, which may have been installed since the node started.

        Raises:
            NotFound: there is none of that name, or it cannot be used.
        """
        faults = {} if name in self._catalogue.plugins else await self._plugin_search.look()
        plugin = self._catalogue.plugins.get(name)
        if plugin is not None:
            return plugin

        there = ", ".join(sorted(self._catalogue.plugins))
        why = faults.get(name) or (
            f"This node has no plugin {name!r}, but {there}. It finds one once that is installed where it runs: "
            "pip install the package into the same environment."
        )
        raise NotFound(why, detail={"path": "$.plugin"})

    async def configure(self, request: wire.ServiceConfigure) -> wire.ServiceAnswer:
        """Change settings; those that are not named stay, null takes one back to its default.

        Raises:
            NotFound, BadMessage
        """
        async with self._database.transaction() as db:
            row = await _lock(db, request.service)
            settings = merged(self._catalogue.plugins[row.plugin], row.settings, request.settings)
            await store.configure(db, row.service_id, settings)
        await self._tell_changed()
        return self._answer(request.service)

    async def pause(self, request: wire.ServicePause) -> wire.ServiceAnswer:
        """Hand out nothing; asks wait, submits count.

        Raises:
            NotFound, ServiceRevoked
        """
        return await self._set_state(request.service, "paused")

    async def resume(self, request: wire.ServiceResume) -> wire.ServiceAnswer:
        """Hand out again.

        Raises:
            NotFound, ServiceRevoked
        """
        return await self._set_state(request.service, "active")

    async def _set_state(self, name: str, state: ServiceState) -> wire.ServiceAnswer:
        async with self._database.transaction() as db:
            row = await _lock(db, name)
            if row.state == "revoked":
                raise ServiceRevoked(f"The service {name} was revoked; restore it first.", scope="service")
            await store.set_state(db, row.service_id, state)
        await self._tell_changed()
        return self._answer(name)

    async def revoke(self, request: wire.ServiceRevoke) -> wire.ServiceRevocation:
        """End a service and take away all that is held of it; its history stays.

        Raises:
            NotFound
        """
        async with self._database.transaction() as db:
            row = await _lock(db, request.service)
            await store.set_state(db, row.service_id, "revoked")
        await self._tell_changed()

        await self._grant.all_delivered()
        released = await self._releases.free_service(row.service_id)
        shown = service_row(self._catalogue.get(request.service))
        return wire.ServiceRevocation(**structs.asdict(shown), released=released)

    async def restore(self, request: wire.ServiceRestore) -> wire.ServiceAnswer:
        """Bring back what was revoked.

        Raises:
            NotFound
        """
        async with self._database.transaction() as db:
            row = await _lock(db, request.service)
            if row.state == "revoked":
                await store.set_state(db, row.service_id, "active")
        await self._tell_changed()
        self._catalogue_fill.begin()
        return self._answer(request.service)

    async def _tell_changed(self) -> None:
        """Read the services again here, so that the answer tells what is in force; other nodes do so soon."""
        async with self._database.connection() as db:
            await self._catalogue.load(db)
        self._signals.tell(ServicesChanged())

    def _answer(self, name: str) -> wire.ServiceAnswer:
        return wire.ServiceAnswer(**structs.asdict(service_row(self._catalogue.get(name))))


async def _lock(db: Connection, name: str) -> store.ServiceRecord:
    row = await store.lock(db, name)
    if row is None:
        raise NotFound(f"There is no service {name!r}.")
    return row


def service_row(entry: Entry) -> wire.ListedService:
    """A service as admins see it."""
    service = entry.service
    return wire.ListedService(
        service=service.name,
        plugin=service.plugin,
        title=service.title,
        state=service.state,
        settings={**asdict(service.settings), **service.options},
    )


def service_counts(entry: Entry, state: statistics.ServiceTotals | None) -> wire.ServiceCounts:
    """The items of a service by where they are, and its open buckets by state; `state` is None if it has none yet."""
    state = state or statistics.ServiceTotals(0, 0, 0)
    return wire.ServiceCounts(
        service=entry.service.name,
        state=entry.service.state,
        items=state.total,
        waiting=state.waiting,
        ready=state.ready,
        claimed=state.claimed,
        dead=state.dead,
        settled=state.settled,
        quarantined=state.quarantined,
        ready_buckets=state.buckets["ready"],
        claimed_buckets=state.buckets["claimed"],
        dead_buckets=state.buckets["dead"],
    )
