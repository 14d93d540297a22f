"""Whether a node can serve: its database answers, and it does not drain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.supervisor import Supervisor
from coordinator.store import nodes

DATABASE_TIMEOUT = 2.0
"""Seconds within which the database must answer."""


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """Whether a node can serve, in sentences what is wrong with it, and the major version of its database if known."""

    ready: bool
    reasons: list[str]
    draining: bool
    database_version: str | None


class Readiness:
    """Tells probes and admins whether the node can serve."""

    def __init__(self, core: Core, supervisor: Supervisor) -> None:
        self._core = core
        self._supervisor = supervisor

    async def report(self) -> ReadinessReport:
        """Ask the database, and look at the node; a part that was started again does not make it unready."""
        version = await self._database_version()
        draining = self._core.state.draining

        reasons = [f"The part {name} has failed and was started again." for name in self._supervisor.failing()]
        if draining:
            reasons.append("The node drains.")
        if version is None:
            reasons.append("The database cannot be reached.")
        return ReadinessReport(version is not None and not draining, reasons, draining, version)

    async def _database_version(self) -> str | None:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT), self._core.database.connection() as db:
                await nodes.clock(db)
                return str(db.get_server_version().major)
        except (Unavailable, TimeoutError):
            return None
