"""Whether a node can serve: its database answers, and it does not drain."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.store import nodes

DATABASE_TIMEOUT = 2.0
"""Seconds within which the database must answer."""


class Readiness:
    """Tells probes and admins whether the node can serve."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ready(self) -> bool:
        """Return whether the node accepts sessions and its database answers."""
        return not self._core.state.draining and await self._reachable()

    async def report(self) -> dict[str, Any]:
        """Return the fields of the answer to `health`.  protocol.md, "health" """
        reachable = await self._reachable()
        version = None
        if reachable:
            async with self._core.database.connection() as db:
                version = str(db.get_server_version().major)

        draining = self._core.state.draining
        return {
            "live": True,
            "ready": reachable and not draining,
            "draining": draining,
            "database": {"reachable": reachable, "version": version},
        }

    async def _reachable(self) -> bool:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT), self._core.database.connection() as db:
                await nodes.clock(db)
        except (Unavailable, TimeoutError):
            return False
        return True
