"""The search box of every page: items, clients and buckets."""

from __future__ import annotations

from coordinator.store.pool import Database
from tests.e2e.conftest import OpenTab
from tests.harness import Server
from tests.serve.tools import value

LONG_ID = "a" * 58 + "-00001"


async def test_one_box_finds_items_clients_and_buckets(server: Server, open_tab: OpenTab, database: Database) -> None:
    await (await server.admin()).ok("item.add", items=[{"key": "alice"}, {"key": "k" * 64}], services=["dm_check"])
    holder = await server.volunteer(LONG_ID)
    bucket = (await holder.bucket())["bucket_id"]
    item = await value(database, "SELECT item_id FROM item WHERE key = 'alice'")

    tab = await open_tab(server, "events")
    await tab.wait_until_live()
    box = tab.page.get_by_role("searchbox", name="Find an item")
    found = tab.page.locator(".found li")

    await tab.page.keyboard.press("k")
    await tab.page.keyboard.type("ali")
    await found.filter(has_text="claimed in dm_check").wait_for()
    await tab.page.keyboard.press("ArrowDown")
    await tab.page.keyboard.press("Enter")
    await tab.wait_until_true(f"location.hash === '#/items/{item}'")
    await tab.wait_until_true("document.querySelector('[data-global-search]').value === ''")

    for way in ("@ALI", "@Alice", "https://x.com/ALICE"):  # an account is found however it is written
        await box.fill(way)
        await found.filter(has_text="alice").wait_for()
        assert await found.count() == 1, way
        await box.fill("")
        await found.first.wait_for(state="detached")

    await box.fill(str(item))
    await found.filter(has_text="alice").wait_for()
    await box.fill(bucket)
    await found.filter(has_text="claimed, dm_check").wait_for()
    assert await found.get_by_role("link").get_attribute("href") == f"#/buckets/{bucket}"

    await box.fill("k" * 9)
    await found.filter(has_text="item").wait_for()
    await tab.check_fit()
    await box.fill("nothing is so")
    await found.filter(has_text="No item, client or bucket is like that").wait_for()
    await box.press("Escape")
    await found.first.wait_for(state="detached")

    await box.fill("aaaa")
    await found.filter(has_text=LONG_ID).wait_for()
    await tab.check_fit()
    await box.press("Enter")
    await tab.wait_for_text("main h1", LONG_ID)
