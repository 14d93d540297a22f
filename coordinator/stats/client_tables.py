"""The tables of what one client did."""

from __future__ import annotations

from coordinator.errors import BadMessage
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.core import Core
from coordinator.model import ServiceId
from coordinator.stats.found import Found
from coordinator.stats.rows import filled
from coordinator.store import client_record
from coordinator.store.pool import Connection
from coordinator.wire import stats as wire
from coordinator.wire.stats_clients import ClientHour, Outcome


class ClientTables:
    """Answers `get` for the tables `client_hours` and `outcomes`; each is one page."""

    def __init__(self, core: Core) -> None:
        self._catalogue: Catalogue = core.catalogue

    async def hours(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """List the last hours of a client.

        Raises:
            BadMessage: the filter names no client.
        """
        found = await client_record.hours(db, one_client(get, wanted), self._service(wanted), get.limit)
        named = [(row, self._catalogue.name_of(row["service_id"])) for row in found]
        return Found.of([filled(ClientHour, row, service=name) for row, name in named if name is not None], None)

    async def outcomes(self, db: Connection, get: wire.Get, wanted: wire.Filter) -> Found:
        """List the kinds of a client's results, beside those of the others.

        Raises:
            BadMessage: the filter names no client.
        """
        found = await client_record.outcomes(db, one_client(get, wanted), self._service(wanted), get.limit)
        named = [(row, self._catalogue.name_of(row["service_id"])) for row in found]
        return Found.of([filled(Outcome, row, service=name) for row, name in named if name is not None], None)

    def _service(self, wanted: wire.Filter) -> ServiceId | None:
        return None if wanted.service is None else self._catalogue.named(wanted.service).service.service_id


def one_client(get: wire.Get, wanted: wire.Filter) -> str:
    """Return the client that a table of one client is of.

    Raises:
        BadMessage: the filter names none, or a second page is asked for.
    """
    if wanted.client_id is None:
        raise BadMessage(f"{get.topic} are of one client.", detail={"path": "$.filter.client_id"})
    if get.after is not None:
        raise BadMessage(f"{get.topic} have one page.", detail={"path": "$.after"})
    return wanted.client_id
