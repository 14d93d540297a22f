"""Every page of the dashboard, in a browser, with the live figures of a node on which work goes on."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.browser import CUT_TEXTS, DESKTOP, PHONE
from tests.e2e.conftest import OpenTab
from tests.e2e.volunteers import volunteers_at_work
from tests.harness import Server
from tests.serve.tools import configure

PAGE_TITLES = {
    "": "Overview",
    "?span=day": "Overview",
    "services": "Services",
    "services/dm_check": "dm_check",
    "services/dm_check?tab=items": "dm_check",
    "services/dm_check?tab=results": "dm_check",
    "services/dm_check?tab=clients": "dm_check",
    "services/dm_check?tab=settings": "dm_check",
    "items/1": "account",
    "results": "Results",
    "add-service": "Add a service",
    "clients": "Clients",
    "clients/worker": "worker",
    "clients/holder?tab=buckets": "holder",
    "clients/worker?tab=results": "worker",
    "clients/worker?tab=events": "worker",
    "buckets": "Buckets",
    "nodes": "Nodes and database",
    "events": "Events",
    "leaderboard": "Leaderboard",
    "leaderboard?span=all": "Leaderboard",
    "volunteers/worker": "worker",
    "project": "The work so far",
    "join": "Take part",
    "tokens": "Tokens",
    "activity": "Activity",
    "add-items": "Add items",
    "nowhere": "Not here",
}


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node whose buckets are small, so that a little work moves all figures."""
    await configure(database, bucket_size=5)
    return await start_server(node_name="here")


@pytest.mark.parametrize(
    ("scheme", "size"), [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE), ("dark", PHONE)],
    ids=["light", "dark", "phone", "dark-phone"],
)  # fmt: skip
@pytest.mark.long
@pytest.mark.timeout(300)  # axe takes seconds a page beside other tests
async def test_each_page_is_accessible_and_fits(
    node: Server, open_tab: OpenTab, scheme: str, size: tuple[int, int]
) -> None:
    async with volunteers_at_work(node):
        tab = await open_tab(node, scheme=scheme, size=size)
        await tab.wait_until_live()
        for address, title in PAGE_TITLES.items():
            await tab.open(address)
            await tab.wait_for_text("main h1", title)
            await tab.wait_until_loaded()
            assert (address, await tab.violations()) == (address, [])
            assert (address, await tab.overflow_pixels()) == (address, 0)
            assert (address, await tab.evaluate(CUT_TEXTS)) == (address, [])


async def test_the_overview_moves_with_the_work(node: Server, open_tab: OpenTab) -> None:
    async with volunteers_at_work(node) as volunteers:
        tab = await open_tab(node)
        await tab.wait_for_text(".lead", "connected")
        await tab.wait_for_text(".lead", "items settled a second")
        before = await tab.text(".figures-row .figure:nth-child(2) .note")
        await volunteers.admin.add(2000, "more", services=["dm_check"])  # the first ones may all be settled by now
        await tab.wait_for_other_text(".figures-row .figure:nth-child(2) .note", before)
        await tab.wait_for_text(".progress-list li", "dm_check")
        await tab.wait_for_text(".leaders li", "worker")
        await tab.wait_for_text(".column.aside", "Nothing has gone wrong lately")
        await tab.wait_for_text(".chart-at", "items/s")
        await tab.page.locator(".chart canvas").wait_for()
        await tab.page.get_by_text("Figures as a table").click()
        await tab.page.locator(".figures tbody tr").first.wait_for()


async def test_a_client_is_followed_down_to_its_results(node: Server, open_tab: OpenTab) -> None:
    async with volunteers_at_work(node) as volunteers:
        tab = await open_tab(node, "clients?search=hold")
        page = tab.page
        await tab.wait_for_text("tbody tr", "holder")
        assert await page.locator("tbody tr").count() == 1
        await page.get_by_role("link", name="holder").click()
        await tab.wait_for_text("main h1", "holder")
        await page.get_by_role("link", name="Buckets").last.click()
        await tab.wait_for_text("tbody tr", volunteers.bucket_id[:8])
        await tab.wait_for_text("tbody tr", "claimed")
        await tab.open("clients/worker")
        settled = page.locator("tbody tr", has_text="dm_check").get_by_role("link").nth(1)
        await settled.click()
        await tab.wait_for_text("tbody tr", '{"dm":"DM"}')
        assert "tab=results" in page.url
        await page.go_back()
        await tab.wait_for_text("thead", "Bad submits")


async def test_services_buckets_nodes_and_events_show_what_is_there(node: Server, open_tab: OpenTab) -> None:
    async with volunteers_at_work(node) as volunteers:
        tab = await open_tab(node, "services")
        await tab.wait_for_text("tbody tr", "follower_check")
        await tab.open("services/dm_check")
        await tab.wait_for_text(".plain", "Priority 100")
        await tab.open("buckets?state=claimed")
        await tab.wait_for_text("tbody tr", volunteers.bucket_id[:8])
        await tab.open("nodes")
        await tab.wait_for_text("tbody tr", "here")
        await tab.wait_for_text("tbody tr", "live")
        await tab.wait_for_text("h2", "Database load of here")
        await tab.open("events?kind=release")
        await tab.wait_for_text(".events li", "giver")
        assert await tab.page.locator(".events li .badge", has_not_text="release").count() == 0
        await tab.open("leaderboard")
        await tab.wait_for_text("tbody tr", "worker")
        await tab.open("services/nothing")
        await tab.wait_for_text("main", "There is no such service")
        await tab.open("clients/nobody")
        await tab.wait_for_text("main", "There is no such client")


async def test_an_empty_coordinator_says_so(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server)
    await tab.wait_for_text(".lead", "no items have been added")
    await tab.wait_for_text(".column.aside", "Nobody yet today")
    await tab.open("clients")
    await tab.wait_for_text("main", "No client has come yet")
