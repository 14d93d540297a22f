"""What is counted in memory reaches the database."""

from __future__ import annotations

from coordinator.flow.client_counters import ClientCounters
from tests.flow.conftest import OpenRoom


async def test_a_loss_is_counted_though_no_client_did_anything(open_room: OpenRoom) -> None:
    room = await open_room()
    counters = ClientCounters()
    counters.dead(room.service)
    await counters.flush(room.database)
    assert await room.value("SELECT sum(dead) FROM history WHERE step = 'second'") == 1
    assert counters.totals[room.service].dead == 1
