"""The promise of the dispatcher: nobody whose reason has ended waits while something is ready.

Real clients of a real node; the reasons begin and end in the database, and no signal tells of their end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from time import monotonic

import pytest

from coordinator.flow.demand_queue import SET_ASIDE_AT_MOST
from coordinator.flow.signal_types import ClientChanged
from coordinator.model import ClientId
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.flow.room import stop_clock
from tests.harness import Server, Volunteer
from tests.serve.tools import configure, eventually, execute, value

ITEMS = 200
"""No more than are kept ready for so many clients: then all are in buckets."""

LATE = SET_ASIDE_AT_MOST + 0.6
"""Seconds within which whoever may be served is served, on a machine that does other things too."""


@dataclass(frozen=True)
class Reason:
    """A reason for which a client is passed over: how it begins and how it ends."""

    name: str
    begins: str
    ends: str | None
    """None: it ends by itself, `seconds` after it began."""


REASONS = (
    Reason("holds what it may", "", "UPDATE bucket SET {free} WHERE client_id = $1"),
    Reason(
        "flagged while it holds one",
        "UPDATE membership SET health = 'flagged', health_reason = 'a test' WHERE client_id = $1",
        "UPDATE bucket SET {free} WHERE client_id = $1",
    ),
    Reason(
        "gave all back",
        "INSERT INTO return_block (client_id, bucket_id, times, until)"
        " SELECT $1, bucket_id, 1, now() + interval '1 hour' FROM bucket WHERE state <> 'done'",
        "DELETE FROM return_block WHERE client_id = $1",
    ),
    Reason(
        "backs off",
        "UPDATE membership SET wait_until = now() + interval '1.5 s', streak = 2 WHERE client_id = $1",
        None,
    ),
    Reason(
        "has reported",
        "UPDATE membership SET report_until = now() + interval '1.5 s' WHERE client_id = $1",
        None,
    ),
    Reason(
        "newcomer",
        "UPDATE membership SET taken_back = settled WHERE client_id = $1",
        "UPDATE membership SET settled = taken_back + 100 WHERE client_id = $1",
    ),
)
FREE = (
    "state = 'ready', client_id = NULL, session_id = NULL, boot = NULL, touched_at = NULL, kept_until = NULL,"
    " rank_at = rank_at + interval '1 hour'"
)


async def served_late(server: Server, client: Volunteer, reason: Reason, seconds: float) -> float:
    """Let a client that holds what it may wait for one more bucket, end its reason, and time its push."""
    bucket = await client.bucket()
    if reason.name == "holds what it may":
        await execute(server.database, "UPDATE membership SET settled = 100 WHERE client_id = $1", client.client_id)
        await client.bucket()
    if reason.name in ("gave all back", "backs off", "has reported"):  # those hold nothing
        assert (await client.submit(bucket))["closed"]
    if reason.begins:
        await execute(server.database, reason.begins, client.client_id)
        server.node.parts.core.signals.tell(ClientChanged(ClientId(client.client_id)))
    await client.ok("ask", service="dm_check", count=1)
    if reason.ends is None:
        ends = monotonic() + 1.5
    else:
        await asyncio.sleep(seconds)
        assert client.pushes.empty(), reason.name
        await execute(server.database, reason.ends.format(free=FREE), client.client_id)
        ends = monotonic()
    try:
        await client.push("bucket", 5.0)
    except TimeoutError:
        pytest.fail(f"forgotten: {reason.name}")
    return monotonic() - ends


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_nobody_whose_reason_has_ended_waits_while_something_is_ready(
    start_server: StartServer, database: Database, seed: int
) -> None:
    random = Random(seed)
    await configure(database, bucket_size=1, max_held_buckets=2, newcomer_buckets=1)
    server = await start_server()
    admin = await server.admin()
    await admin.add(ITEMS)
    chosen = [*REASONS, *(random.choice(REASONS) for _ in range(4))]
    clients = [await server.volunteer(f"client{n}") for n in range(len(chosen))]
    worker = await server.volunteer("worker")

    async def all_ready() -> bool:
        return bool(await value(database, "SELECT count(*) = $1 FROM bucket", ITEMS))

    await eventually(all_ready, "the pool is full")
    await stop_clock(server.node)

    async def work() -> None:
        """Another one asks and is served all the time, so that the dispatcher is never idle."""
        while True:
            assert (await worker.submit(await worker.bucket()))["closed"]
            await asyncio.sleep(random.uniform(0.05, 0.1))

    working = asyncio.ensure_future(work())
    try:
        late = await asyncio.gather(
            *(
                served_late(server, client, reason, random.uniform(0.1, 1.6))
                for client, reason in zip(clients, chosen, strict=True)
            )
        )
    finally:
        working.cancel()
    told = {
        f"{client.client_id}: {reason.name}": seconds
        for client, reason, seconds in zip(clients, chosen, late, strict=True)
    }
    assert max(late) < LATE, told
