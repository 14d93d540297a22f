"""Calls of plugins.  What one raises, how long it takes and what it answers spoils only what it was asked about.

Hooks of plugins from outside the package that may take time run in threads that nobody waits for at the end; those
that work in a transaction run in a savepoint, so that an error which a plugin swallows is still one.
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
from coordinator.flow.catalogue import Entry
from coordinator.model import ClaimNumber, ClientId, ItemId
from coordinator.services import Item, Rows, Settled
from coordinator.services.contract import Plugin
from coordinator.services.reader import Raw, bad_results
from coordinator.store import item_changes
from coordinator.store.pool import Connection, Database
from coordinator.store.results import PluginStore

log = structlog.get_logger()

DEADLINE = 5.0
"""Seconds that a plugin may take for one submit."""

LONG = 600.0
"""Seconds that it may take for millions of results."""

THREADS = 8
"""Threads of one plugin at once: those that never come back use them up, and then its submits fail at once."""

T = TypeVar("T")


class PluginRunner:
    """Asks plugins."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.faulted: Callable[[str, str, str], None] = lambda action, target, what: None
        self._threads: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(THREADS))

    async def select(self, entry: Entry, items: Sequence[Item]) -> list[ItemId]:
        """Those of the items that concern a service; none where its plugin cannot tell."""
        plugin = entry.plugin
        if not plugin.selects:
            return [one.item for one in items]
        try:
            return await self._apart(entry, "select", lambda: _selected(plugin, items))
        except Internal:
            return []

    async def read(self, entry: Entry, raw: Raw) -> tuple[Rows, Mapping[ItemId, Item]]:
        """The results of one submit, looked at by the plugin, and the items that they are of if it wants them.

        Raises:
            BadMessage, BadResult: they are not as the service wants them.
            Internal: the plugin has failed.
        """
        plugin = entry.plugin
        rows = await self._apart(entry, "read", lambda: entry.reader.read(raw))
        if not (plugin.checks or plugin.stores):
            return rows, {}
        async with self._database.connection() as db:
            found = await item_changes.by_ids(db, [item for item, _ in rows.decoded])
        items = {one.item: Item(one.item, one.key, one.attributes) for one in found}
        if plugin.checks:
            errors = await self._apart(entry, "check", lambda: _errors(plugin, rows, items))
            if errors:
                raise bad_results(entry.service.name, errors)
        return rows, items

    def keep(
        self, entry: Entry, rows: Rows, items: Mapping[ItemId, Item], claim: ClaimNumber, client: ClientId
    ) -> PluginStore | None:
        """What stores this submit in the plugin's own tables; None if it has none."""
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
        """These items are deleted in this transaction.

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
        """What came through these claims does not count any more, or again, as of this transaction.

        Raises:
            Internal, Unavailable: as `within`.
        """
        plugin = entry.plugin
        step = plugin.invalidate if hook == "invalidate" else plugin.reinstate
        await self.within(entry, db, hook, lambda: step(db, claims), LONG)

    async def within(
        self, entry: Entry, db: Connection, hook: str, call: Callable[[], Awaitable[None]], deadline: float = DEADLINE
    ) -> None:
        """Let a hook work within the transaction on `db`.

        Raises:
            Internal: the plugin has failed; the transaction must not commit.
            Unavailable: the database has; the same may work again.
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
            # The call of a plugin: whatever it raises is answered and logged, and nobody else notices.
            if entry.plugin.built_in or db.is_closed():
                raise
            raise self._fault(entry, hook, failure) from failure

    async def _apart(self, entry: Entry, hook: str, call: Callable[[], T]) -> T:
        """Off the event loop and under the deadline, unless the plugin is one of ours."""
        try:
            if entry.plugin.built_in:
                return call()
            async with asyncio.timeout(DEADLINE):
                return await self._in_thread(entry.plugin, call)
        except PeerError:
            raise
        except Exception as failure:
            # As above: the call of a plugin.
            raise self._fault(entry, hook, failure) from failure

    def _fault(self, entry: Entry, hook: str, failure: Exception) -> Internal:
        slow = isinstance(failure, TimeoutError)
        log.error(
            "a plugin failed",
            plugin=entry.service.plugin,
            service=entry.service.name,
            hook=hook,
            error="it took too long" if slow else repr(failure),
            exc_info=None if slow else failure,
        )
        self.faulted("plugin.fault", entry.service.name, f"{hook}: {'it took too long' if slow else repr(failure)}")
        return Internal(f"The plugin of {entry.service.name} failed.", scope="service")

    async def _in_thread(self, plugin: Plugin, call: Callable[[], T]) -> T:
        # Not asyncio.to_thread: its threads are shared with others, and a process waits for them before it ends.
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
        return result  # type: ignore[return-value]  # without a failure it is the call's


def _selected(plugin: Plugin, items: Sequence[Item]) -> list[ItemId]:
    chosen = []
    for one in items:
        answer = plugin.select(one)
        if not isinstance(answer, bool):
            raise TypeError(f"select answered {answer!r}, not True or False")
        if answer:
            chosen.append(one.item)
    return chosen


def _errors(plugin: Plugin, rows: Rows, items: Mapping[ItemId, Item]) -> list[dict[str, object]]:
    errors: list[dict[str, object]] = []
    for place, (item, result) in enumerate(rows.decoded):
        if item not in items:
            continue
        answer = None
        try:
            answer = plugin.check(items[item], result)  # type: ignore[func-returns-value]  # that is to be seen
        except (ValueError, BadResult) as refusal:
            errors.append({"item": item, "reason": str(refusal)[:500], "path": f"$.results[{place}]"})
        if answer is not None:
            raise TypeError(f"check answered {answer!r}; it raises or returns nothing")
    return errors
