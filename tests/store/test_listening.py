"""A connection that hears NOTIFY is closed by whoever gets it, or by the call that was broken off."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from coordinator.store.pool import Connection, Database
from tests.serve.tools import eventually, value

BACKENDS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
)


async def test_one_that_is_broken_off_leaves_no_connection(database: Database) -> None:
    before = await value(database, BACKENDS)
    for moment in range(40):
        listening = asyncio.ensure_future(database.listen("anything", _ignore))
        await asyncio.sleep(moment * 0.0003)  # before, within and after each of its steps
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await (await listening).close()

    async def gone() -> bool:
        return bool(await value(database, BACKENDS) == before)

    await eventually(gone, "a connection was left open")


def _ignore(connection: Connection, pid: int, channel: str, payload: str) -> None:
    pass
