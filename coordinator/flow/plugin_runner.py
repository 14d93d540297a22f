"""Call plugins.  If one raises, is too slow or answers nonsense, only the request that it was called for fails.

Hooks of plugins from outside the package run in processes of their own, with a deadline and bounded memory
(`plugin_processes.py`), all but the `async` ones: they work in a transaction of the node's, and are cancelled when they
are late, which helps where they wait, not where they compute.  They run in a savepoint, so that an error which a plugin
swallows still undoes its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeVar
from weakref import WeakValueDictionary

import asyncpg
import structlog

from coordinator.errors import BadMessage, Internal, PeerError, ServerUnavailable, Unavailable
from coordinator.flow.activity import ActivityLog
from coordinator.flow.catalogue import Entry
from coordinator.flow.plugin_processes import PluginBusy, PluginFault, PluginProcesses
from coordinator.model import ClaimNumber, ClientId, ItemId, JsonObject
from coordinator.services import DecodedResults, Item, Settled, hooks
from coordinator.services.hooks import Call
from coordinator.services.reader import Raw
from coordinator.store import item_changes
from coordinator.store.pool import Connection, Database
from coordinator.store.results import PluginStore

log = structlog.get_logger()

SUBMIT_DEADLINE = 5.0
"""Seconds that a plugin may take for one submit."""

INVALIDATION_DEADLINE = 600.0
"""Seconds that a plugin may take to invalidate or reinstate results: they may be millions."""

ITEMS_PER_SELECT = 1000
"""Items that a plugin is asked about at once: each may have 4 KiB of attributes."""

T = TypeVar("T")


class PluginRunner:
    """Calls the hooks of plugins, with a deadline and a report of each failure."""

    def __init__(self, database: Database, activity: ActivityLog) -> None:
        self._database = database
        self._activity = activity
        self._processes = PluginProcesses()
        self._turns: WeakValueDictionary[tuple[str, ClientId], asyncio.Lock] = WeakValueDictionary()
        """One process of a plugin for the submits of one client, so that it makes all of them hang for nobody else."""

    async def close(self) -> None:
        """End the processes of plugins."""
        await self._processes.close()

    async def select(self, entry: Entry, items: Sequence[Item]) -> list[ItemId]:
        """Return the items that a service has to check; none if its plugin fails."""
        if not entry.plugin.selects:
            return [item.item for item in items]

        chosen: list[ItemId] = []
        try:
            for place in range(0, len(items), ITEMS_PER_SELECT):
                chosen += await self._apart(entry, hooks.select, items[place : place + ITEMS_PER_SELECT])
        except (Internal, ServerUnavailable):
            return []
        return chosen

    async def refuse_profile(self, entry: Entry, profile: JsonObject, path: str) -> None:
        """Check that a profile has the service's shape.

        Raises:
            BadMessage: it has not; `detail.path` begins with `path`.
            Internal: the plugin failed.
        """
        fault = await self._apart(entry, hooks.profile_fault, profile)
        if fault is not None:
            reason, _, inner = fault.partition(" - at `$")
            raise BadMessage(
                f"The profile for {entry.service.name}: {reason}.", detail={"path": path + inner.rstrip("`")}
            )

    async def read(self, entry: Entry, raw: Raw, client: ClientId) -> tuple[DecodedResults, Mapping[ItemId, Item]]:
        """Decode and check the results of one submit; returns them, and their items if a hook of the plugin gets them.

        Raises:
            BadMessage, BadResult: the plugin refuses them.
            Internal: the plugin failed.
        """
        if entry.plugin.built_in:
            return await self._read(entry, raw)
        async with self._turns.setdefault((entry.plugin.name, client), asyncio.Lock()):
            return await self._read(entry, bytes(raw))

    async def _read(self, entry: Entry, raw: Raw) -> tuple[DecodedResults, Mapping[ItemId, Item]]:
        plugin = entry.plugin
        rows = await self._apart(entry, hooks.read, raw)
        if not (plugin.checks or plugin.stores or plugin.discovers):
            return rows, {}

        async with self._database.connection() as db:
            stored = await item_changes.by_ids(db, [item for item, _ in rows.decoded])
        items = {item.item: Item(item.item, item.key, item.attributes) for item in stored}
        if plugin.checks:
            errors = await self._apart(entry, hooks.check, rows, items)
            if errors:
                raise errors.error()
        return rows, items

    def keep(
        self, entry: Entry, rows: DecodedResults, items: Mapping[ItemId, Item], claim: ClaimNumber, client: ClientId
    ) -> PluginStore | None:
        """Return the step that stores this submit in the plugin's own tables; None if the plugin has none."""
        if not entry.plugin.stores:
            return None

        parts = {item for item, _ in rows.parts}

        async def keep(db: Connection, kept: Collection[ItemId], at: datetime) -> bool:
            settled = [
                Settled(item, items[item].key, result, item in parts, claim, client, at)
                for item, result in rows.decoded
                if item in kept and item in items
            ]
            if not settled:
                return False
            return await self.within(entry, db, "store", lambda: entry.plugin.store(db, settled)) is not False

        return keep

    async def discover(self, entry: Entry, results: Sequence[tuple[Item, object]]) -> list[tuple[ItemId, list[str]]]:
        """Return the keys that each of these results shows, some thousands at most.

        Raises:
            Internal: the plugin failed.
        """
        return await self._apart(entry, hooks.discover, results)

    async def forget(self, entry: Entry, db: Connection, items: Sequence[ItemId]) -> None:
        """Let a plugin delete what it has stored about items, in the transaction that deletes them.

        Raises:
            Internal, Unavailable: as `within`.
        """
        await self.within(entry, db, "forget", lambda: entry.plugin.forget(db, items))

    async def follow(
        self,
        entry: Entry,
        db: Connection,
        hook: Literal["invalidate", "reinstate"],
        claims: Sequence[ClaimNumber],
    ) -> None:
        """Let a plugin invalidate or reinstate the results of these claims, in this transaction.

        Raises:
            Internal, Unavailable: as `within`.
        """
        plugin = entry.plugin
        step = plugin.invalidate if hook == "invalidate" else plugin.reinstate
        await self.within(entry, db, hook, lambda: step(db, claims), INVALIDATION_DEADLINE)

    async def within(
        self,
        entry: Entry,
        db: Connection,
        hook: str,
        call: Callable[[], Awaitable[T]],
        deadline: float = SUBMIT_DEADLINE,
    ) -> T:
        """Run a hook within the transaction on `db`, and return its answer; `deadline` in seconds.

        Raises:
            Internal: the plugin failed; the transaction must not commit.
            Unavailable: the database failed; a repetition may succeed.
        """
        try:
            if entry.plugin.built_in:
                return await call()
            async with asyncio.timeout(deadline), db.transaction():
                return await call()
        except asyncpg.DeadlockDetectedError as failure:
            raise Unavailable("Two submits waited for each other.") from failure
        except Exception as failure:
            # The call of a plugin: an exception of any type is answered and logged, and no other request fails.
            if entry.plugin.built_in or db.is_closed():
                raise
            raise self._fault(entry, hook, failure) from failure

    async def _apart(self, entry: Entry, hook: Callable[..., T], *arguments: object) -> T:
        """Call a hook in a process of its plugin, under the deadline; one of a built-in plugin is called directly.

        Raises:
            PeerError: the plugin refuses what it was given, or (Internal) it failed, or (ServerUnavailable) is busy.
        """
        try:
            if entry.plugin.built_in:
                return hook(entry.plugin, entry.reader, *arguments)
            service = entry.service
            call = Call(
                service.plugin, service.name, service.options, entry.plugin.key_form, hook, arguments, SUBMIT_DEADLINE
            )
            return await self._processes.call(call)  # type: ignore[return-value]  # what the hook returns is a T
        except PeerError:
            raise
        except PluginBusy as failure:
            message = f"{self._fault(entry, hook.__name__, failure).message}  Nothing was stored; try again."
            raise ServerUnavailable(message, retry_after=1.0, scope="service") from failure
        except Exception as failure:
            # As above: the call of a plugin.
            raise self._fault(entry, hook.__name__, failure) from failure

    def _fault(self, entry: Entry, hook: str, failure: Exception) -> Internal:
        """Log a plugin's failure, and return the error that answers the request."""
        known = isinstance(failure, PluginFault | TimeoutError)
        error = repr(failure)
        if known:
            error = str(failure) or "it took too long"

        log.error(
            "a plugin failed",
            plugin=entry.service.plugin,
            service=entry.service.name,
            hook=hook,
            error=error,
            exc_info=None if known else failure,
            details=getattr(failure, "details", None),
        )

        self._activity.fault("plugin.fault", entry.service.name, f"{hook}: {error}")
        return Internal(f"The plugin of {entry.service.name} failed.", scope="service")
