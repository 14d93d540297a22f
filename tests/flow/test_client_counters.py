"""Counts in memory reach the database, once."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from coordinator.flow.client_counters import ClientCounters
from coordinator.model import BucketId
from tests.flow.conftest import OpenRoom
from tests.flow.outage import Outage


async def test_a_loss_is_counted_though_no_client_did_anything(open_room: OpenRoom) -> None:
    room = await open_room()
    counters = ClientCounters()
    counters.dead(room.service)
    await counters.flush(room.database)
    assert await room.value("SELECT sum(dead) FROM history WHERE step = 'second'") == 1
    assert counters.totals[room.service].dead == 1


async def test_counts_whose_commit_was_not_answered_count_once(open_room: OpenRoom) -> None:
    room = await open_room()
    counters = ClientCounters()
    counters.dead(room.service)

    outage = Outage(room.database.dsn)
    bucket = BucketId(uuid4())  # none: the moment is that of the commit
    await outage.during(counters.flush(room.database), bucket, "committed")
    counters.dead(room.service)
    counters.dead(room.service)
    for _ in range(2):
        await counters.flush(room.database)

    assert await room.value("SELECT sum(dead) FROM history WHERE step = 'second'") == 3
    assert counters.totals[room.service].dead == 3


async def test_counts_that_are_flushed_twice_at_once_count_once(open_room: OpenRoom) -> None:
    room = await open_room()
    counters = ClientCounters()
    counters.dead(room.service)
    await asyncio.gather(*(counters.flush(room.database) for _ in range(2)))
    assert await room.value("SELECT sum(dead) FROM history WHERE step = 'second'") == 1
    assert counters.totals[room.service].dead == 1
