"""Every page of the dashboard, in a browser, with the live figures of a node on which work goes on."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.browser import DESK, PHONE
from tests.e2e.conftest import OpenLook
from tests.e2e.crew import at_work
from tests.harness import Server
from tests.serve.tools import configure

PLACES = {
    "": "Overview",
    "?span=day": "Overview",
    "services": "Services",
    "services/dm_check": "dm_check",
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
    "nowhere": "Not here",
}


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node whose buckets are small, so that a little work moves all figures."""
    await configure(database, bucket_size=5)
    return await start_server(node_name="here")


@pytest.mark.parametrize(
    ("scheme", "size"), [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)],
    ids=["light", "dark", "phone", "dark-phone"],
)  # fmt: skip
async def test_each_page_is_accessible_and_fits(
    node: Server, open_look: OpenLook, scheme: str, size: tuple[int, int]
) -> None:
    async with at_work(node):
        look = await open_look(node, scheme=scheme, size=size)
        await look.live()
        for place, title in PLACES.items():
            await look.go(place)
            await look.says("main h1", title)
            await look.settled()
            assert (place, await look.violations()) == (place, [])
            assert (place, await look.too_wide()) == (place, 0)


async def test_the_overview_moves_with_the_work(node: Server, open_look: OpenLook) -> None:
    async with at_work(node):
        look = await open_look(node)
        await look.says(".lead", "connected")
        await look.says(".lead", "items settled a second")
        before = await look.text(".figures-row .figure:nth-child(2) .note")
        await look.until_changed(".figures-row .figure:nth-child(2) .note", before)
        await look.says(".progress-list li", "dm_check")
        await look.says(".leaders li", "worker")
        await look.says(".events li", "giver")
        await look.says(".chart-at", "items/s")
        await look.page.locator(".chart canvas").wait_for()
        await look.page.get_by_text("Figures as a table").click()
        await look.page.locator(".figures tbody tr").first.wait_for()


async def test_a_client_is_followed_down_to_its_results(node: Server, open_look: OpenLook) -> None:
    async with at_work(node) as crew:
        look = await open_look(node, "clients?search=hold")
        page = look.page
        await look.says("tbody tr", "holder")
        assert await page.locator("tbody tr").count() == 1
        await page.get_by_role("link", name="holder").click()
        await look.says("main h1", "holder")
        await page.get_by_role("link", name="Buckets").last.click()
        await look.says("tbody tr", crew.bucket_id[:8])
        await look.says("tbody tr", "claimed")
        await look.go("clients/worker")
        settled = page.locator("tbody tr", has_text="dm_check").get_by_role("link").nth(1)
        await settled.click()
        await look.says("tbody tr", '{"dm":"DM"}')
        assert "tab=results" in page.url
        await page.go_back()
        await look.says("thead", "Bad submits")


async def test_services_buckets_nodes_and_events_show_what_is_there(node: Server, open_look: OpenLook) -> None:
    async with at_work(node) as crew:
        look = await open_look(node, "services")
        await look.says("tbody tr", "follower_check")
        await look.go("services/dm_check")
        await look.says(".plain", "Priority 100")
        await look.go("buckets?state=claimed")
        await look.says("tbody tr", crew.bucket_id[:8])
        await look.go("nodes")
        await look.says("tbody tr", "here")
        await look.says("tbody tr", "live")
        await look.says("h2", "Database load of here")
        await look.go("events?kind=release")
        await look.says(".events li", "giver")
        assert await look.page.locator(".events li .badge", has_not_text="release").count() == 0
        await look.go("leaderboard")
        await look.says("tbody tr", "worker")
        await look.go("services/nothing")
        await look.says("main", "There is no such service")
        await look.go("clients/nobody")
        await look.says("main", "There is no such client")


async def test_an_empty_coordinator_says_so(server: Server, open_look: OpenLook) -> None:
    look = await open_look(server)
    await look.says(".lead", "no items have been added")
    await look.says(".column.aside", "Nobody yet today")
    await look.go("clients")
    await look.says("main", "No client is like that")
