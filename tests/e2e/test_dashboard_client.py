"""The page of one client: its record, its sessions, and why it was deactivated."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.browser import PHONE
from tests.e2e.conftest import OpenTab
from tests.e2e.test_dashboard_clients import LAPTOP
from tests.e2e.test_dashboard_safety import as_role
from tests.e2e.test_dashboard_tables import LONG_ID
from tests.harness import Server
from tests.serve.tools import configure


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node with small buckets, some of which two clients have settled differently."""
    await configure(database, bucket_size=5)
    server = await start_server(node_name="here")
    await (await server.admin()).add(100, services=["dm_check"])
    for name, dm in ((LONG_ID, "DM"), ("other", "NON_DM")):
        volunteer = await server.volunteer(name, agent="checker/1.2")
        for _ in range(3):
            await volunteer.submit(await volunteer.bucket(), dm)

        bucket = await volunteer.bucket()
        claim = {"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}
        results = [{"item": bucket["items"][0]["item"], "dm": "MAYBE"}]
        assert await volunteer.refused("submit", **claim, results=results, final=False) == "bad_result"
        await volunteer.ok("release", **claim)
    return server


@pytest.mark.long
@pytest.mark.parametrize(("scheme", "size"), [("light", LAPTOP), ("dark", PHONE)], ids=["laptop", "phone"])
async def test_the_record_of_a_client(node: Server, open_tab: OpenTab, scheme: str, size: tuple[int, int]) -> None:
    tab = await open_tab(node, f"clients/{LONG_ID}?tab=record", scheme=scheme, size=size)
    await tab.wait_for_text(".chart-at", "15.0 items/h")
    await tab.wait_for_text("tbody tr:has-text('NON_DM')", "100 %")
    await tab.wait_for_text("tbody tr:has(time)", "dm_check")
    await tab.wait_for_text(".events li", "MAYBE")
    await tab.wait_for_text("main", "No change of its health is known")
    await tab.wait_until_loaded()
    assert await tab.violations() == []
    assert await tab.overflow_pixels() == 0


async def test_operators_see_the_sessions_of_a_client_and_why_it_was_deactivated(
    node: Server, open_tab: OpenTab
) -> None:
    tab = await open_tab(node, "clients/other?tab=sessions")
    await tab.wait_for_text(".head-row", "idle")
    assert await tab.page.get_by_role("link", name="Sessions").count() == 0  # it names an address
    await as_role(tab, node, "operator")
    await tab.wait_for_text("tbody tr", "checker/1.2")
    await tab.wait_for_text("tbody tr", "127.0.0.1")
    await tab.wait_for_text("tbody tr", "here")
    assert await tab.violations() == []
    admin = await node.admin()
    await admin.ok("client.deactivate", client_id="other", reason="it is always the same answer")
    await tab.wait_for_text(".head-row", "it is always the same answer")
    await tab.wait_for_text(".head-row", "offline")
    await tab.page.get_by_role("button", name="Look again").click()
    await tab.wait_for_text("main", "It is not connected.")
    onlooker = await open_tab(node, "clients/other")
    await onlooker.wait_for_text(".head-row", "by an admin")
    assert "always the same" not in await onlooker.page.content()
