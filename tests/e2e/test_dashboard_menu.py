"""The menu of the dashboard: four parts and their pages, on a wide window and on a phone."""

from __future__ import annotations

from tests.e2e.browser import PHONE
from tests.e2e.conftest import OpenTab
from tests.harness import Server

CURRENT = """Array.from(document.querySelectorAll('nav [aria-current]'))
    .filter(link => link.checkVisibility()).map(link => link.innerText)"""


async def test_the_menu_leads_to_a_part_and_to_its_pages(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server)
    parts = tab.page.get_by_role("navigation", name="Parts")
    assert await parts.get_by_role("link").all_inner_texts() == ["Overview", "Work", "People", "System"]
    await parts.get_by_role("link", name="System").click()
    await tab.wait_for_text("main h1", "Nodes")
    await tab.page.get_by_role("navigation", name="Pages of System").get_by_role("link", name="Events").click()
    await tab.wait_for_text("main h1", "Events")
    assert await tab.evaluate(CURRENT) == ["System", "Events"]


async def test_a_phone_has_a_button_that_names_the_place_and_lists_all_pages(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server, "events", size=PHONE)
    button = tab.page.get_by_role("button", name="Menu")
    assert "System · Events" in await button.inner_text()
    assert await tab.page.get_by_role("navigation", name="Parts").count() == 0

    await button.click()
    pages = tab.page.get_by_role("navigation", name="All pages")
    assert await pages.get_by_role("link", name="Events").get_attribute("aria-current") == "page"
    assert await tab.violations() == []
    assert await tab.overflow_pixels() == 0
    await tab.page.keyboard.press("Escape")
    await pages.wait_for(state="hidden")

    await tab.page.keyboard.press("Enter")  # the button has the focus again
    await pages.get_by_role("link", name="Leaderboard").click()
    await tab.wait_for_text("main h1", "Leaderboard")
    await pages.wait_for(state="hidden")
    assert "People · Leaderboard" in await button.inner_text()
