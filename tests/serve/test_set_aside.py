"""A client that is set aside is looked at again within a second of the end of its reason, though no signal tells of it.

And though others go on asking and being served, which keeps the dispatcher from ever being idle.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from uuid import UUID

from coordinator.flow.signal_types import ClientChanged
from coordinator.model import BucketId, ClaimNumber, ClientId, ServiceId
from coordinator.store import claims
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.flow.room import stop_clock
from tests.harness import Admin, Message, Server, Volunteer
from tests.serve.tools import configure, eventually, execute, value

READY = 40
"""As many as the builder keeps ready for two clients."""


async def filled(server: Server, admin: Admin, count: int = READY) -> None:
    """Each item is in a ready bucket of its own, nothing is left to build, and the clock stands still."""
    await admin.add(count)

    async def ready() -> bool:
        return bool(await value(server.database, "SELECT count(*) = $1 FROM bucket WHERE state = 'ready'", count))

    await eventually(ready, "the pool is full")
    await stop_clock(server.node)


async def served_while_another_works(volunteer: Volunteer, other: Volunteer) -> tuple[Message, float]:
    """The bucket that comes at last, and the seconds until it came."""
    begun = monotonic()
    while volunteer.pushes.empty():
        assert monotonic() - begun < 5, "it was forgotten"
        assert (await other.submit(await other.bucket()))["closed"]
        await asyncio.sleep(0.1)
    return await volunteer.push("bucket"), monotonic() - begun


async def test_one_that_gave_back_all_that_is_ready(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin = await server.admin()
    volunteer, other = await server.volunteer("volunteer"), await server.volunteer("other")
    await filled(server, admin)
    await execute(
        database,
        "INSERT INTO return_block (client_id, bucket_id, times, until)"
        " SELECT 'volunteer', bucket_id, 1, now() + interval '1 hour' FROM bucket WHERE state = 'ready'",
    )
    await volunteer.ok("ask", service="dm_check", count=1)
    await other.submit(await other.bucket())
    assert volunteer.pushes.empty()

    await execute(database, "UPDATE return_block SET until = now()")
    _, seconds = await served_while_another_works(volunteer, other)
    assert seconds < 2


async def test_one_that_was_at_its_limit(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=1)
    server = await start_server()
    admin = await server.admin()
    volunteer, other = await server.volunteer("volunteer"), await server.volunteer("other")
    await admin.add(1, prefix="first")
    first = await volunteer.bucket()
    await volunteer.ok("ask", service="dm_check", count=2)
    await execute(
        database,
        "UPDATE membership SET health = 'flagged', health_reason = 'a test' WHERE client_id = 'volunteer'",
    )
    server.node.parts.core.signals.tell(ClientChanged(ClientId("volunteer")))

    async def flagged() -> bool:
        (identity,) = server.node.parts.core.registry.identities(ClientId("volunteer"))
        return identity.health_in(ServiceId(1)) == "flagged"

    await eventually(flagged, "the node does not know of it")
    await filled(server, admin)
    await other.submit(await other.bucket())
    assert volunteer.pushes.empty()

    async with database.connection() as db:  # as another node does, whose signal is lost
        bucket, claim = BucketId(UUID(first["bucket_id"])), ClaimNumber(first["claim"])
        await claims.release_claim(db, bucket, claim, claims.UNDELIVERED, 0.0)
    _, seconds = await served_while_another_works(volunteer, other)
    assert seconds < 2
