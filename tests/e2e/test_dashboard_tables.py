"""Tables of the dashboard: long ids, the way back from a page, empty lists, print, and rows after an operation."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.e2e.browser import PHONE
from tests.e2e.conftest import OpenTab
from tests.e2e.test_dashboard_safety import as_role, confirm
from tests.harness import Server
from tests.serve.tools import execute

LONG_ID = "a" * 58 + "-00001"

_CLIENTS = """
INSERT INTO client (client_id, screen_name, registered)
SELECT $1, $1, true UNION ALL
SELECT 'client-' || lpad(n::text, 5, '0'), 'name-' || n, true FROM generate_series(1, 350) n"""

SELECTED_CLIENT = """() => {
    getSelection().selectAllChildren(document.querySelector('tbody tr .name'));
    return getSelection().toString();
}"""

TYPED_BEFORE_A_LINK = """() => {
    const field = document.querySelector('[data-search]');
    field.value = '';
    field.dispatchEvent(new Event('input', {bubbles: true}));
    location.hash = '#/clients?search=client-00350';
    return new Promise(done => setTimeout(done, 250));  // after the timer of the search, which is as long
}"""


async def test_a_long_id_leaves_room_for_the_other_columns(
    server: Server, open_tab: OpenTab, database: Database
) -> None:
    await execute(database, _CLIENTS, LONG_ID)
    tab = await open_tab(server, "clients?sort=client_id")
    await tab.wait_for_text("tbody tr", LONG_ID)
    name = tab.page.locator("tbody tr .name").first
    for width in (1280, 640, 390):
        await tab.page.set_viewport_size({"width": width, "height": 800})
        box = await name.bounding_box()
        assert box is not None
        assert box["width"] <= 200
        assert await tab.overflow_pixels() == 0
    assert await name.get_attribute("title") == LONG_ID
    assert await tab.evaluate(SELECTED_CLIENT) == LONG_ID


@pytest.mark.long
async def test_there_is_a_way_back_after_a_reload_and_out_of_a_filter(
    server: Server, open_tab: OpenTab, database: Database
) -> None:
    await execute(database, _CLIENTS, LONG_ID)
    tab = await open_tab(server, "clients?sort=client_id")
    page = tab.page
    for rows in ("101 to 200", "201 to 300", "301 to 351"):
        await page.get_by_role("link", name="Next").click()
        await tab.wait_for_text(".pager", rows)
    await page.reload()
    for rows in ("201 to 300", "101 to 200", "1 to 100"):
        await page.get_by_role("link", name="Previous").click()
        await tab.wait_for_text(".pager", rows)

    search = page.get_by_label("Search")
    await search.fill("nobody")
    await tab.wait_for_text("main", "No client is like that")
    await page.get_by_role("link", name="Take the filters away").click()
    await tab.wait_for_text("tbody tr", LONG_ID)
    await page.evaluate(TYPED_BEFORE_A_LINK)
    await tab.wait_for_rows(1)
    assert "search=client-00350" in page.url
    assert await search.input_value() == "client-00350"


async def test_legends_keep_their_colours_in_print(server: Server, open_tab: OpenTab) -> None:
    await (await server.admin()).add(3)
    tab = await open_tab(server, scheme="dark")
    await tab.page.locator(".legend .swatch").first.wait_for()
    await tab.page.emulate_media(media="print")
    style = "getComputedStyle(document.querySelector('.swatch')).webkitPrintColorAdjust"
    assert await tab.evaluate(style) == "exact"
    assert await tab.page.locator(".tools").is_hidden()


@pytest.mark.long
async def test_a_row_does_not_offer_again_what_was_just_done(server: Server, open_tab: OpenTab) -> None:
    await (await server.admin()).add(50, services=["dm_check"])
    holder = await server.volunteer("holder")
    await holder.bucket()
    tab = await open_tab(server, "clients/holder?tab=buckets")
    await as_role(tab, server, "operator")
    await confirm(tab, "Release")
    assert await tab.page.get_by_role("button", name="Release", exact=True).count() == 0
    await tab.wait_for_text("main", "No bucket is open here")

    await tab.open("clients/holder")
    await confirm(tab, "Deactivate client")
    assert await tab.page.get_by_role("button", name="Deactivate client").count() == 0
    await tab.page.get_by_role("button", name="Activate client").wait_for()
    assert await tab.page.get_by_role("button", name="Deactivate here").count() == 0


async def test_a_client_that_waits_has_its_reason_on_its_page(server: Server, open_tab: OpenTab) -> None:
    volunteer = await server.volunteer("ada")
    await volunteer.ok("ask", service="dm_check", count=1)
    tab = await open_tab(server, "clients/ada")
    await tab.wait_for_text("tbody tr .reason", "waits: there is nothing to do now")


async def test_what_needs_a_person_leads_to_its_page(server: Server, open_tab: OpenTab) -> None:
    await (await server.admin()).add(3, services=["dm_check"])
    tab = await open_tab(server, size=PHONE)
    await tab.wait_for_text(".concerns", "1 thing needs you")
    await tab.wait_until_loaded()
    assert await tab.violations() == []
    await tab.page.get_by_role("link", name="nobody works on dm_check").click()
    await tab.wait_for_text("main h1", "dm_check")
