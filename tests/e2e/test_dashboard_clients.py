"""The list of clients: what they do, in any order, and what is done with many of them at once."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.browser import PHONE
from tests.e2e.conftest import OpenTab
from tests.e2e.test_dashboard_safety import as_role
from tests.e2e.test_dashboard_tables import LONG_ID
from tests.harness import Server
from tests.serve.tools import configure, execute, value

LAPTOP = (1280, 800)

_CLIENTS = """
WITH made AS (
    INSERT INTO client (client_id, screen_name)
    SELECT 'client-' || lpad(n::text, 5, '0'), 'name-' || n FROM generate_series(1, 4990) n RETURNING client_id)
INSERT INTO membership (client_id, service_id, settled, last_access)
SELECT client_id, service_id, 1, now() - interval '2 hours' FROM made, service WHERE name = 'dm_check'"""


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node with small buckets and 4,990 clients that have been offline for two hours."""
    await configure(database, bucket_size=5)
    await execute(database, _CLIENTS)
    return await start_server()


@pytest.mark.parametrize(("scheme", "size"), [("light", LAPTOP), ("dark", PHONE)], ids=["laptop", "phone"])
async def test_what_clients_do_stands_beside_their_state(
    node: Server, open_tab: OpenTab, scheme: str, size: tuple[int, int]
) -> None:
    await (await node.admin()).add(50, services=["dm_check"])
    await (await node.volunteer(LONG_ID)).bucket()
    limited = await node.volunteer("limited")
    await limited.ok("report", service="dm_check", kind="upstream_limited", retry_after=900)

    tab = await open_tab(node, "clients", scheme=scheme, size=size)
    await tab.wait_for_text(".lead", "4,992 clients.")
    await tab.open("clients?connected=yes")
    await tab.wait_for_text(".lead", "2 of 4,992 clients.")
    await tab.wait_for_text(f"tbody tr:has([title='{LONG_ID}'])", "working")
    await tab.wait_for_text("tbody tr:has([title=limited])", "limited")
    await tab.wait_for_text("tbody tr:has([title=limited])", "until")
    await tab.open("clients?search=name-4321")
    await tab.wait_for_text("tbody tr", "for 2 h")
    await tab.wait_until_loaded()
    assert await tab.violations() == []
    assert await tab.overflow_pixels() == 0


@pytest.mark.long
async def test_every_column_sorts_both_ways(node: Server, open_tab: OpenTab, database: Database) -> None:
    most, dead = "client-00007", "client-00009"
    await execute(database, "UPDATE membership SET settled = 99 WHERE client_id = $1", most)
    await execute(database, "UPDATE membership SET dead = 4 WHERE client_id = $1", dead)
    tab = await open_tab(node, "clients")
    first = "tbody tr:first-child"
    await tab.wait_for_text(first, most)
    for title, downwards, upwards in (
        ("Dead", dead, "client-00001"),
        ("Settled", most, "client-00001"),
        ("Client", "client-00001", "client-04990"),
    ):
        await tab.page.get_by_role("link", name=title, exact=True).click()
        await tab.wait_for_text(first, downwards)
        await tab.page.locator("th[aria-sort] a", has_text=title).click()
        await tab.wait_for_text(first, upwards)

    titles = await tab.page.locator("thead th a").all_inner_texts()
    assert [title.rstrip(" ↑↓") for title in titles] == [
        "Client", "State", "Health", "Settled", "Held", "Dead", "Given back", "Sessions", "Last access",
    ]  # fmt: skip


async def test_all_that_match_are_deactivated_once_their_number_is_confirmed(
    node: Server, open_tab: OpenTab, database: Database
) -> None:
    tab = await open_tab(node, "clients?search=client-0000")
    page = tab.page
    await tab.wait_for_text(".lead", "9 of 4,990 clients")
    assert await page.locator(".bulk, input[type=checkbox]").count() == 0  # a viewer may not
    await as_role(tab, node, "operator")
    await page.get_by_role("button", name="Choose all 9 that match").click()
    await page.get_by_label("Choose client-00004", exact=True).uncheck()
    await tab.wait_for_text(".bulk", "8 chosen")

    await page.get_by_role("button", name="Deactivate …").click()
    await page.get_by_label("Reason").fill("they are one person")
    button = page.locator("dialog").get_by_role("button", name="Deactivate", exact=True)
    await page.get_by_label("To confirm").fill("9")
    assert await button.is_disabled()
    await page.get_by_label("To confirm").fill("8")
    assert await tab.violations() == []
    await button.click()
    await tab.wait_for_text(".toasts", "8 clients deactivated.")
    await tab.wait_for_text("tbody tr", "they are one person")
    done = "SELECT count(*) FROM client WHERE deactivated = 'they are one person' AND client_id <> 'client-00004'"
    assert await value(database, done) == await value(database, "SELECT count(deactivated) FROM client") == 8


@pytest.mark.long
async def test_chosen_clients_are_told_something_and_lose_their_results(
    node: Server, open_tab: OpenTab, database: Database
) -> None:
    await (await node.admin()).add(50, services=["dm_check"])
    ada, bob = await node.volunteer("ada"), await node.volunteer("bob")
    for volunteer in (ada, bob):
        await volunteer.submit(await volunteer.bucket())

    tab = await open_tab(node, "clients?connected=yes", size=PHONE)
    page = tab.page
    await as_role(tab, node, "operator")
    for name in ("ada", "bob"):
        await page.get_by_label(f"Choose {name}", exact=True).check()
    await page.get_by_role("button", name="Send a message …").click()
    await page.get_by_role("textbox", name="Message").fill("Please use version 2.")
    await page.get_by_label("To confirm").fill("2")
    assert await tab.violations() == []
    await page.locator("dialog").get_by_role("button", name="Send a message").click()
    for volunteer in (ada, bob):
        while (told := await volunteer.pushes.get())["type"] != "notice":
            pass
        assert told["text"] == "Please use version 2."

    await page.get_by_label("Choose bob", exact=True).check()
    await page.get_by_role("button", name="Take results back …").click()
    await tab.wait_for_text("dialog", "These are 5 results.")
    assert await tab.violations() == []
    await page.locator("dialog").get_by_role("button", name="Take results back").click()
    await tab.wait_for_text(".toasts", "1 client without results now.")
    taken = "SELECT array_agg(DISTINCT client_id) FROM claim WHERE invalidated_by IS NOT NULL"
    assert await value(database, taken) == ["bob"]
