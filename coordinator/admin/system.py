"""The server tells how far the work is, its limits, and its health.  protocol.md, "stats" """

from __future__ import annotations

from msgspec import structs

from coordinator.admin import Steps
from coordinator.admin.services import service_counts
from coordinator.flow.core import Core
from coordinator.flow.readiness import Readiness
from coordinator.stats.capacity import MEASURED_CAPACITY
from coordinator.stats.rows import oldest_rows
from coordinator.stats.topics import service_totals
from coordinator.store import statistics
from coordinator.store.statement_stats import StatementSnapshot
from coordinator.wire.admin import system as wire
from coordinator.wire.frames import Limits
from coordinator.wire.stats import StatementRow


class SystemRequests:
    """Carries out the requests `stats`, `limits` and `health`."""

    def __init__(self, core: Core, readiness: Readiness, limits: Limits) -> None:
        self._database = core.database
        self._key_form = core.key_form
        self._catalogue = core.catalogue
        self._readiness = readiness
        self._limits = limits

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.Stats: self.stats,
            wire.LimitsShow: self.limits,
            wire.Health: self.health,
        }

    async def stats(self, request: wire.Stats) -> wire.ServerStats:
        """Tell how far each service is, what waits longest in it, and what this node asks of the database."""
        async with self._database.connection() as db:
            states = await service_totals(db)

        services = []
        for entry in sorted(self._catalogue.all(), key=lambda entry: entry.service.name):
            state = states.get(entry.service.service_id) or statistics.ServiceTotals(0, 0, 0)
            counts = structs.asdict(service_counts(entry, state))
            services.append(wire.ServiceStats(**counts, oldest=oldest_rows(state, entry.service.settings)))
        totals = _statement_totals(self._database.load.snapshot())
        return wire.ServerStats(services=services, database=totals, key_form=self._key_form)

    async def limits(self, request: wire.LimitsShow) -> wire.ServerLimits:
        """Tell the limits of the server, and what one node carried when it was measured."""
        return wire.ServerLimits(limits=self._limits, carries=MEASURED_CAPACITY)

    async def health(self, request: wire.Health) -> wire.ServerHealth:
        """Tell whether this node can work."""
        report = await self._readiness.report()
        version = report.database_version
        return wire.ServerHealth(
            live=True,
            ready=report.ready,
            draining=report.draining,
            database=wire.DatabaseHealth(reachable=version is not None, version=version),
        )


def _statement_totals(snapshot: StatementSnapshot) -> wire.StatementTotals:
    return wire.StatementTotals(
        statements=[
            StatementRow(
                statement=counts.statement,
                calls=counts.calls,
                rows=counts.rows,
                milliseconds=round(counts.seconds * 1000, 3),
            )
            for counts in snapshot.statements
        ],
        pool_waits=snapshot.pool_waits,
        pool_waited=round(snapshot.pool_seconds, 6),
    )
