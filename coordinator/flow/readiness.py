"""Whether a node can serve: its database answers and stores, and it does not drain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.supervisor import Supervisor
from coordinator.keys import KeyForm
from coordinator.store import nodes

DATABASE_TIMEOUT = 2.0
"""Seconds within which the database must answer."""

LOOKS_APART = 0.1
"""Seconds for which the database's answer holds: anybody may ask, as often as they like."""


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """Whether a node can serve, and in sentences what is wrong with it.

    `database_version` is the major version of its database, if known; `key_form` how that compares keys.
    """

    ready: bool
    reasons: list[str]
    draining: bool
    database_version: str | None
    key_form: KeyForm


class Readiness:
    """Tells probes and admins whether the node can serve."""

    def __init__(self, core: Core, supervisor: Supervisor) -> None:
        self._core = core
        self._supervisor = supervisor
        self._looking = asyncio.Lock()
        self._version: str | None = None
        self._read_only = False
        self._look_again = 0.0

    async def report(self) -> ReadinessReport:
        """Ask the database, and look at the node; a part that was started again does not make it unready."""
        version = await self._database_version()
        trouble = self._core.database.trouble
        draining = self._core.state.draining

        reasons = [f"The part {name} has failed and was started again." for name in self._supervisor.failing()]
        if draining:
            reasons.append("The node drains.")
        if trouble is None and version is None:
            trouble = "The database cannot be reached."
        elif trouble is None and self._read_only:
            trouble = "The database stores nothing: it is read-only."
        if trouble is not None:
            reasons.append(trouble)
        return ReadinessReport(trouble is None and not draining, reasons, draining, version, self._core.key_form)

    async def _database_version(self) -> str | None:
        async with self._looking:
            if monotonic() >= self._look_again:
                self._version = await self._look()
                self._look_again = monotonic() + LOOKS_APART
            return self._version

    async def _look(self) -> str | None:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT), self._core.database.connection() as db:
                self._read_only = await nodes.is_read_only(db)
                return str(db.get_server_version().major)
        except (Unavailable, TimeoutError):
            return None
