"""Nobody comes to a chosen item but by chance."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.hostile.chance import SIZE, hunt
from tests.serve.test_reading import WAYS, Way, release
from tests.serve.tools import configure


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_by_no_way_does_one_identity_come_to_a_chosen_item(
    start_server: StartServer, database: Database, way: Way
) -> None:
    await configure(database, bucket_size=SIZE)
    server = await start_server()
    found = await hunt(server, await server.admin(), way, ["hunter"], 12)
    assert found.least <= found.hits <= found.most


async def test_nor_do_fifty_identities_of_one_address(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=SIZE)
    server = await start_server()
    found = await hunt(server, await server.admin(), release, [f"hunter{number}" for number in range(50)], 150)
    assert found.least <= found.hits <= found.most
