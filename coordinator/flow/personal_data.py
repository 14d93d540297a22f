"""All that is kept of a volunteer, told to it and erased.  protocol.md, "me.export" """

from __future__ import annotations

import asyncio

from msgspec import Raw

from coordinator.errors import NotFound, ServerUnavailable
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.release import Releases
from coordinator.flow.signal_types import ClientChanged, NoticeChanged
from coordinator.model import ClientId
from coordinator.store import claims, clients
from coordinator.store import personal_data as store
from coordinator.wire.paging import cursor, cursor_text, number

GONE_WITHIN = 10.0
"""Seconds in which all nodes close the sessions of a client that is erased."""

WRITTEN_WITHIN = 2.0
"""Seconds in which each node writes what it has counted and seen, as it does every second."""


class PersonalData:
    """Exports and erases all that is kept of one client."""

    def __init__(self, core: Core, grant: Grant, releases: Releases) -> None:
        self._database = core.database
        self._counters = core.counters
        self._signals = core.signals
        self._grant = grant
        self._releases = releases

    async def page(self, client: ClientId, after: str | None, limit: int) -> tuple[Raw, str | None]:
        """Return a page of what is kept of a client, as a JSON array, and where the next one begins.

        Raises:
            BadMessage: `after` is none.
            NotFound: there is no such client.
            Unavailable
        """
        begin = ("", 0)
        if after is not None:
            key, kind = cursor(after, 2)
            begin = (key, number(kind))

        await self._counters.flush(self._database)
        async with self._database.connection() as db:
            if await clients.find(db, client) is None:
                raise NotFound(f"There is no client {client!r}.")
            found = await store.page(db, client, begin, limit)
        rows = Raw(f"[{','.join(found.rows)}]".encode())
        return rows, None if found.last is None else cursor_text(*found.last)

    async def erase(self, client: ClientId) -> ClientId:
        """Replace all that tells who a client is by a number, which is returned; its results stay.

        Raises:
            NotFound: there is no such client.
            ServerUnavailable: a node does not close its sessions; it is deactivated, and can be erased later.
            Unavailable
        """
        async with self._database.connection() as db:
            if not await clients.deactivate(db, client, None, "is being erased"):
                raise NotFound(f"There is no client {client!r}.")
        await self._grant.all_delivered()
        await self._releases.free_client(client, None, claims.DEACTIVATED, "deactivated")
        self._signals.tell(ClientChanged(client))
        await self._until_gone(client)

        # What nodes still count and tell of it would bear its name again.
        await asyncio.sleep(WRITTEN_WITHIN)
        await self._counters.flush(self._database)
        async with self._database.transaction() as db:
            erased = await store.erase(db, client)
        if erased is None:
            raise NotFound(f"There is no client {client!r}.")

        number, notices = erased
        for notice in notices:  # whoever takes the id next is not to be told them
            self._signals.tell(NoticeChanged(notice))
        return number

    async def _until_gone(self, client: ClientId) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + GONE_WITHIN
        while True:
            async with self._database.connection() as db:
                if not await store.is_here(db, client):
                    return
            if loop.time() > end:
                raise ServerUnavailable("A node has not closed the client's sessions: try again.", scope="server")
            await asyncio.sleep(0.05)
