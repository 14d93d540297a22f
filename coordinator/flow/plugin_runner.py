"""Call plugins.  If one raises, is too slow or answers nonsense, only the request that it was called for fails.

Hooks of plugins from outside the package run in threads that the node does not wait for when it ends.  Hooks that
work in a transaction run in a savepoint, so that an error which a plugin swallows still undoes its work.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal, TypeVar

import asyncpg
import structlog

from coordinator.errors import BadResult, Internal, PeerError, Unavailable
from coordinator.flow.activity import ActivityLog
from coordinator.flow.catalogue import Entry
from coordinator.model import ClaimNumber, ClientId, ItemId
from coordinator.services import DecodedResults, Item, Settled
from coordinator.services.contract import Plugin
from coordinator.services.reader import Raw, ResultErrors
from coordinator.store import item_changes
from coordinator.store.pool import Connection, Database
from coordinator.store.results import PluginStore

log = structlog.get_logger()

SUBMIT_DEADLINE = 5.0
"""Seconds that a plugin may take for one submit."""

INVALIDATION_DEADLINE = 600.0
"""Seconds that a plugin may take to invalidate or reinstate results: they may be millions."""

THREADS_PER_PLUGIN = 8
"""Threads of one plugin at once.  If calls that never return use up all, its submits fail."""

T = TypeVar("T")


class PluginRunner:
    """Calls the hooks of plugins, with a deadline and a report of each failure."""

    def __init__(self, database: Database, activity: ActivityLog) -> None:
        self._database = database
        self._activity = activity
        self._threads: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(THREADS_PER_PLUGIN))

    async def select(self, entry: Entry, items: Sequence[Item]) -> list[ItemId]:
        """Return the items that a service has to check; none if its plugin fails."""
        plugin = entry.plugin
        if not plugin.selects:
            return [item.item for item in items]
        try:
            return await self._apart(entry, "select", lambda: _selected(plugin, items))
        except Internal:
            return []

    async def read(self, entry: Entry, raw: Raw) -> tuple[DecodedResults, Mapping[ItemId, Item]]:
        """Decode and check the results of one submit; returns them, and their items if a hook of the plugin gets them.

        Raises:
            BadMessage, BadResult: the plugin refuses them.
            Internal: the plugin failed.
        """
        plugin = entry.plugin
        rows = await self._apart(entry, "read", lambda: entry.reader.read(raw))
        if not (plugin.checks or plugin.stores):
            return rows, {}

        async with self._database.connection() as db:
            stored = await item_changes.by_ids(db, [item for item, _ in rows.decoded])
        items = {item.item: Item(item.item, item.key, item.attributes) for item in stored}
        if plugin.checks:
            errors = await self._apart(entry, "check", lambda: _errors(plugin, rows, items))
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

        async def keep(db: Connection, kept: Collection[ItemId], at: datetime) -> None:
            settled = [
                Settled(item, items[item].key, result, item in parts, claim, client, at)
                for item, result in rows.decoded
                if item in kept and item in items
            ]
            if settled:
                await self.within(entry, db, "store", lambda: entry.plugin.store(db, settled))

        return keep

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
        call: Callable[[], Awaitable[None]],
        deadline: float = SUBMIT_DEADLINE,
    ) -> None:
        """Run a hook within the transaction on `db`; `deadline` in seconds.

        Raises:
            Internal: the plugin failed; the transaction must not commit.
            Unavailable: the database failed; a repetition may succeed.
        """
        try:
            if entry.plugin.built_in:
                await call()
                return
            async with asyncio.timeout(deadline), db.transaction():
                await call()
        except asyncpg.DeadlockDetectedError as failure:
            raise Unavailable("Two submits waited for each other.") from failure
        except Exception as failure:
            # The call of a plugin: an exception of any type is answered and logged, and no other request fails.
            if entry.plugin.built_in or db.is_closed():
                raise
            raise self._fault(entry, hook, failure) from failure

    async def _apart(self, entry: Entry, hook: str, call: Callable[[], T]) -> T:
        """Run a hook off the event loop and under the deadline; one of a built-in plugin is called directly.

        Raises:
            PeerError: the plugin refuses what it was given, or (Internal) it failed.
        """
        try:
            if entry.plugin.built_in:
                return call()
            async with asyncio.timeout(SUBMIT_DEADLINE):
                return await self._in_thread(entry.plugin, call)
        except PeerError:
            raise
        except Exception as failure:
            # As above: the call of a plugin.
            raise self._fault(entry, hook, failure) from failure

    def _fault(self, entry: Entry, hook: str, failure: Exception) -> Internal:
        """Log a plugin's failure, and return the error that answers the request."""
        slow = isinstance(failure, TimeoutError)
        error = "it took too long" if slow else repr(failure)
        log.error(
            "a plugin failed",
            plugin=entry.service.plugin,
            service=entry.service.name,
            hook=hook,
            error=error,
            exc_info=None if slow else failure,
        )
        self._activity.fault("plugin.fault", entry.service.name, f"{hook}: {error}")
        return Internal(f"The plugin of {entry.service.name} failed.", scope="service")

    async def _in_thread(self, plugin: Plugin, call: Callable[[], T]) -> T:
        # Not asyncio.to_thread: its threads are shared, and a process waits for them before it ends.
        threads = self._threads[plugin.name]
        await threads.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

        def done(result: T | None, failure: BaseException | None) -> None:
            threads.release()
            if not answer.done():
                answer.set_result((result, failure))

        def run() -> None:
            result, failure = None, None
            try:
                result = call()
            except BaseException as raised:
                failure = raised
            with suppress(RuntimeError):  # the node has ended meanwhile
                loop.call_soon_threadsafe(done, result, failure)

        threading.Thread(target=run, name=f"plugin {plugin.name}", daemon=True).start()
        result, failure = await answer
        if failure is not None:
            raise failure if isinstance(failure, Exception) else RuntimeError(repr(failure))
        return result  # type: ignore[return-value]  # without a failure it is a T


def _selected(plugin: Plugin, items: Sequence[Item]) -> list[ItemId]:
    chosen = []
    for item in items:
        answer = plugin.select(item)
        if not isinstance(answer, bool):
            raise TypeError(f"select answered {answer!r}, not True or False")
        if answer:
            chosen.append(item.item)
    return chosen


def _errors(plugin: Plugin, rows: DecodedResults, items: Mapping[ItemId, Item]) -> ResultErrors:
    errors = ResultErrors(plugin.service)
    for place, (item, result) in enumerate(rows.decoded):
        if item not in items:
            continue

        answer = None
        try:
            answer = plugin.check(items[item], result)  # type: ignore[func-returns-value]  # it is checked below
        except (ValueError, BadResult) as refusal:
            errors.add(item, f"$.results[{place}]", str(refusal))
        if answer is not None:
            raise TypeError(f"check answered {answer!r}; it raises or returns nothing")
    return errors
