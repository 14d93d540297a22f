"""Whether a node can serve: its database answers, and it does not drain."""

from __future__ import annotations

import asyncio

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.supervisor import Supervisor
from coordinator.store import nodes

DATABASE_TIMEOUT = 2.0
"""Seconds within which the database must answer."""


class Readiness:
    """Tells probes and admins whether the node can serve."""

    def __init__(self, core: Core, supervisor: Supervisor) -> None:
        self._core = core
        self._supervisor = supervisor

    async def probe(self) -> tuple[bool, list[str]]:
        """Return whether the node takes sessions and can work for them, and in sentences what is wrong with it."""
        draining, reachable = self._core.state.draining, await self._reachable()
        reasons = [f"The part {name} has failed and was started again." for name in self._supervisor.failing()]
        if draining:
            reasons.append("The node drains.")
        if not reachable:
            reasons.append("The database cannot be reached.")
        return reachable and not draining, reasons

    async def database_version(self) -> str | None:
        """Return the major version of the database; None if it cannot be reached."""
        if not await self._reachable():
            return None
        async with self._core.database.connection() as db:
            return str(db.get_server_version().major)

    async def _reachable(self) -> bool:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT), self._core.database.connection() as db:
                await nodes.clock(db)
        except (Unavailable, TimeoutError):
            return False
        return True
