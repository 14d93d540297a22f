"""Preparing a connection for the statements that somebody waits for, before anybody does.

The first time that a connection is asked something it has to look up types and make a plan, which takes several times
as long as the statement itself.
"""

from __future__ import annotations

from uuid import UUID

from coordinator.model import Boot, ClientId, ServiceId, ServiceSettings, SessionId
from coordinator.store import adding, building, claims, item_changes, results, waits
from coordinator.store.pool import Connection

NO_SERVICE = ServiceId(-1)
NO_SESSION = SessionId(UUID(int=0))


async def warm_up(db: Connection) -> None:
    """Run each such statement once with nothing to do, so that nothing changes by it."""
    await claims.claim(db, NO_SERVICE, [], Boot(0), ServiceSettings())
    await waits.find_waits(db, NO_SERVICE, [], ServiceSettings())
    await claims.release_session(db, ClientId(""), NO_SESSION, claims.CUT_OFF, 0.0, [])
    await adding.add(db, [], {}, 100)
    await adding.join(db, NO_SERVICE, [], 100, 0.0)
    await building.make_few(db, NO_SERVICE, 1)
    async with db.transaction():
        await results.settle(db, [])
        await item_changes.take_for_priority(db, NO_SERVICE, [], 0, 0.0)
        await building.put_buckets(db, [])
