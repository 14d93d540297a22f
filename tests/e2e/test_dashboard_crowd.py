"""Fifty thousand clients, a hundred services and a million results in the tables."""

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


RESULTS = 1_000_000

# Of each bucket of 200 one claim; the value of one result in the middle is like no other.
_ITEMS = "INSERT INTO item (key) SELECT 'item-' || lpad(n::text, 7, '0') FROM generate_series(1, $1) n"
_ENROLMENT = """
INSERT INTO enrolment (service_id, block, members)
SELECT service_id, block, repeat('1', 1024)::bit(1024)
  FROM service, generate_series(0, $1 / 1024 - 1) AS block WHERE name = 'dm_check'"""
_BUCKETS = """
WITH made AS (
    INSERT INTO bucket (bucket_id, service_id, state, rank_at, since, priority, settled, claim_id, indexed)
    SELECT gen_random_uuid(), service_id, 'done', now(), now(), 100, repeat('1', 200)::varbit, n, false
      FROM service, generate_series(1, $1 / 200) n WHERE name = 'dm_check'
    RETURNING bucket_id, service_id, claim_id),
listed AS (
    INSERT INTO bucket_items (bucket_id, items)
    SELECT bucket_id, ARRAY (SELECT generate_series(claim_id * 200 - 199, claim_id * 200)) FROM made)
INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given, settled, begun_at, ended_at,
                   ended)
SELECT claim_id, bucket_id, service_id, 'client-' || claim_id % 100, gen_random_uuid(), 1, repeat('1', 200)::varbit,
       200, now() - make_interval(secs => 10000 - claim_id), now() - make_interval(secs => 9999 - claim_id), 'settled'
  FROM made"""
_RESULTS = """
INSERT INTO result (item_id, claim_id, service_id, at, value)
SELECT i.item_id, k.claim_id, k.service_id, k.ended_at,
       CASE WHEN i.item_id = $1 / 2 THEN '{"dm": "UNKNOWN"}' ELSE '{"dm": "DM"}' END::jsonb
  FROM claim k JOIN bucket_items c USING (bucket_id) CROSS JOIN LATERAL unnest(c.items) AS i (item_id)
 ORDER BY k.claim_id"""


@pytest.fixture
async def crowded(start_server: StartServer, database: Database) -> Server:
    """A node whose database has `CLIENTS` clients and `SERVICES` services more."""
    async with database.connection() as db:
        await db.execute(_SERVICES, SERVICES)
        await db.execute(_CLIENTS, CLIENTS)
        await db.execute(_MEMBERSHIPS, CLIENTS)
        await db.execute("ANALYZE")
    return await start_server()


@pytest.mark.long
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
    await tab.check_fit()


async def test_a_hundred_services_are_listed_and_filtered(crowded: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(crowded, "services")
    await tab.wait_for_text("tbody tr", "service-100")
    assert await tab.page.locator("tbody tr").count() == SERVICES + 3
    await tab.check_fit()
    await tab.page.get_by_label("Search").fill("service-04")
    await tab.wait_for_rows(10)
    await tab.open()
    await tab.wait_for_text(".card", "more services")


@pytest.mark.long
async def test_a_million_results_are_read_from_the_newest_on(
    start_server: StartServer, database: Database, open_tab: OpenTab
) -> None:
    async with database.connection() as db:
        for statement in (_ITEMS, _ENROLMENT, _BUCKETS, _RESULTS):
            await db.execute(statement, RESULTS, timeout=90)
        await db.execute("ANALYZE", timeout=60)
    tab = await open_tab(await start_server(), "services/dm_check?tab=results")
    page = tab.page
    await tab.wait_for_text("tbody tr", "item-1000000")
    await page.get_by_role("link", name="Next").click()
    await tab.wait_for_text("tbody tr", "item-0999950")
    await page.get_by_label("Client's id").fill("client-7")
    await tab.wait_for_text("tbody tr", "item-0981400")

    await tab.open("services/dm_check?tab=results&field=dm&value=UNKNOWN")
    await tab.wait_for_text("main", "None among those looked at")
    await tab.check_fit()
    await page.get_by_role("link", name="Next").click()
    await tab.wait_for_text(".pager", "Page 2")
    await tab.open("services/dm_check?tab=items&prefix=item-0500000")
    await page.get_by_role("link", name="item-0500000").click()
    await tab.wait_for_text("tbody tr", '{"dm":"UNKNOWN"}')
