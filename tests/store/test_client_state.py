"""A client's state in one word is decided by the database alone."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database


@pytest.mark.parametrize(
    ("deactivated", "registered", "idle", "expected"),
    [
        ("by an admin", False, True, "deactivated"),
        (None, False, True, "unregistered"),
        (None, True, True, "inactive"),
        (None, True, False, "active"),
    ],
)
async def test_the_state_of_a_client(
    database: Database, deactivated: str | None, registered: bool, idle: bool, expected: str
) -> None:
    async with database.connection() as db:
        assert await db.fetchval("SELECT client_state($1, $2, $3)", deactivated, registered, idle) == expected
