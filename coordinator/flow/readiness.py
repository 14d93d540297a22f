"""Whether a node can serve: its database answers, and it does not drain."""

from __future__ import annotations

import asyncio

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.store import nodes

PATIENCE = 2.0
"""Seconds in which the database must answer."""


class Readiness:
    """Tells probes and admins how a node is."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ready(self) -> bool:
        """Whether the node takes sessions and can work for them."""
        return not self._core.state.draining and await self._reachable()

    async def database_version(self) -> str | None:
        """Return the major version of the database; None if it cannot be reached."""
        if not await self._reachable():
            return None
        async with self._core.database.connection() as db:
            return str(db.get_server_version().major)

    async def _reachable(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE), self._core.database.connection() as db:
                await nodes.clock(db)
        except (Unavailable, TimeoutError):
            return False
        return True
