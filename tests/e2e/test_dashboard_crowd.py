"""Fifty thousand clients and a hundred services in the tables."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.conftest import OpenTab
from tests.harness import Server

CLIENTS, SERVICES = 50_000, 100

_CLIENTS = """
INSERT INTO client (client_id, screen_name, registered)
SELECT 'client-' || lpad(n::text, 5, '0'), 'name-' || (n * 7919 % $1), n % 10 > 0 FROM generate_series(1, $1) n"""

_MEMBERSHIPS = """
INSERT INTO membership (client_id, service_id, settled, dead, last_access)
SELECT 'client-' || lpad(n::text, 5, '0'), service_id, n, n % 3, now() - make_interval(secs => n)
  FROM generate_series(1, $1) n, service WHERE name = 'dm_check'"""

_SERVICES = """
INSERT INTO service (name, plugin, title)
SELECT 'service-' || lpad(n::text, 3, '0'), 'dm_check', 'Check ' || n FROM generate_series(1, $1) n"""


@pytest.fixture
async def crowded(start_server: StartServer, database: Database) -> Server:
    """A node whose database has `CLIENTS` clients and `SERVICES` services more."""
    async with database.connection() as db:
        await db.execute(_SERVICES, SERVICES)
        await db.execute(_CLIENTS, CLIENTS)
        await db.execute(_MEMBERSHIPS, CLIENTS)
        await db.execute("ANALYZE")
    return await start_server()


async def test_fifty_thousand_clients_are_sorted_searched_and_paged(crowded: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(crowded, "clients")
    page = tab.page
    first = page.locator("tbody tr").first
    await tab.wait_for_text("tbody tr", "client-50000")
    assert await page.locator("tbody tr").count() == 100
    assert "client-50000" in await first.inner_text()

    await page.get_by_role("link", name="Next").click()
    await tab.wait_for_text(".pager", "Rows 101 to 200")
    assert "client-49900" in await first.inner_text()
    await page.reload()  # the address keeps the page
    await tab.wait_for_text(".pager", "Rows 101 to 200")
    assert "client-49900" in await first.inner_text()
    await page.go_back()
    await tab.wait_for_text(".pager", "Rows 1 to 100")

    await page.get_by_role("link", name="Client", exact=True).click()
    await tab.wait_for_text("tbody tr", "client-00001")
    assert await page.locator("th[aria-sort=ascending]").count() == 1

    await page.get_by_label("Search").fill("client-4999")
    await tab.wait_for_text("tbody tr", "client-49990")
    await tab.wait_for_rows(10)
    assert "search=client-4999" in page.url
    await page.get_by_label("State").select_option("unregistered")
    await tab.wait_for_rows(1)
    await tab.wait_until_loaded()
    assert await tab.violations() == []


async def test_a_hundred_services_are_listed_and_filtered(crowded: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(crowded, "services")
    await tab.wait_for_text("tbody tr", "service-100")
    assert await tab.page.locator("tbody tr").count() == SERVICES + 3
    await tab.page.get_by_label("Search").fill("service-04")
    await tab.wait_for_rows(10)
    await tab.open()
    await tab.wait_for_text(".card", "more services")
