"""Uses of the dashboard: keyboard, theme, freeze, hidden tabs, tokens, and a node that dies."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from playwright.async_api import WebSocket

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.conftest import OpenTab
from tests.e2e.test_dashboard_safety import as_role
from tests.e2e.test_readme import Serving, a_free_port, folder
from tests.e2e.volunteers import volunteers_at_work
from tests.harness import Server
from tests.serve.tools import configure, eventually

__all__ = ["folder"]

HIDE = """hidden => {
    Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""

SETTLED = ".figures-row .figure:nth-child(2) .note"


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node whose buckets are small."""
    await configure(database, bucket_size=5)
    return await start_server()


async def test_the_keyboard_reaches_everything(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server)
    page = tab.page
    await tab.wait_until_live()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "content"
    await page.keyboard.type("gc")
    await tab.wait_for_text("main h1", "Clients")
    assert await page.evaluate("document.activeElement.tagName") == "H1"
    await page.keyboard.press("/")
    await page.keyboard.type("gs?f")
    assert await page.locator("[data-search]").input_value() == "gs?f"
    await tab.wait_for_text("main h1", "Clients")
    await page.keyboard.press("Tab")
    await page.locator("main h1").focus()
    await page.keyboard.press("?")
    await tab.wait_for_text("dialog", "Keyboard")
    assert await tab.violations() == []
    await page.get_by_label("Shortcuts are on").uncheck()
    await page.keyboard.press("Escape")
    await page.locator("dialog").wait_for(state="detached")
    await page.keyboard.type("gs")
    await page.get_by_role("link", name="Work", exact=True).focus()
    assert await page.locator("main h1").inner_text() == "Clients"


async def test_the_theme_is_the_systems_until_another_is_chosen(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = await tab.evaluate(ground)
    button = tab.page.get_by_role("button", name="Theme")
    await button.click()
    await tab.wait_for_text(".tools", "Light")
    light = await tab.evaluate(ground)
    assert light != dark
    await tab.page.reload()
    await tab.wait_for_text(".tools", "Light")
    assert await tab.evaluate(ground) == light
    await button.click()
    assert await tab.evaluate(ground) == dark


async def test_a_frozen_view_holds_still(node: Server, open_tab: OpenTab, database: Database) -> None:
    async with volunteers_at_work(node) as volunteers:
        tab = await open_tab(node)
        await tab.wait_for_text(SETTLED, "items")
        await tab.page.get_by_role("button", name="Freeze").click()
        held = await tab.text(SETTLED)

        async def settled() -> int:
            stats = await volunteers.admin.ok("stats")
            return int(next(row["settled"] for row in stats["services"] if row["service"] == "dm_check"))

        before = await settled()

        async def moved() -> bool:
            return await settled() > before + 100

        await eventually(moved, "the worker does not work")
        assert await tab.text(SETTLED) == held
        await tab.page.keyboard.press("f")
        await tab.wait_for_other_text(SETTLED, held)


async def test_a_hidden_tab_costs_the_server_nothing(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server)
    sockets: list[WebSocket] = []
    tab.page.on("websocket", lambda socket: sockets.append(socket))
    await tab.page.reload()
    await tab.wait_until_live()
    await tab.evaluate(HIDE, True)
    await tab.wait_for_text(".connection", "Paused")
    if not sockets[-1].is_closed():
        await sockets[-1].wait_for_event("close")
    await tab.evaluate(HIDE, False)
    await tab.wait_until_live()
    assert len(sockets) == 2


async def test_a_token_is_asked_for_where_viewers_need_one(start_server: StartServer, open_tab: OpenTab) -> None:
    server = await start_server(viewers="token")
    tab = await open_tab(server)
    await tab.wait_for_text("main", "The server does not let this page look")
    page = tab.page
    await page.locator("input[type=password]").fill("wrong")
    await page.get_by_role("button", name="Use this token").click()
    await tab.wait_for_text("main .refusal", "token")
    await tab.wait_for_text("main", "The server does not let this page look")
    assert await tab.violations() == []
    await page.locator("input[type=password]").fill(await server.token("viewer"))
    await page.get_by_role("button", name="Use this token").click()
    await tab.wait_until_live()
    await page.reload()
    await tab.wait_until_live()
    kept = await page.evaluate("[Object.keys(localStorage).length, Object.keys(sessionStorage)]")
    assert kept == [0, ["coordinator.token"]]
    assert "token" not in page.url


async def test_a_wrong_token_leaves_an_open_dashboard_open(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server)
    await tab.wait_until_live()
    await tab.page.get_by_role("button", name="Account: Viewer").click()
    await tab.page.locator("input[type=password]").fill("wrong")
    await tab.page.get_by_role("button", name="Use this token").click()
    await tab.wait_for_text("dialog [role=alert]", "token")
    assert await tab.violations() == []
    await tab.page.keyboard.press("Escape")
    assert await tab.page.locator(".connection.live").count() == 1
    await as_role(tab, server, "operator")
    await tab.page.get_by_role("button", name="Account: Operator").click()
    await tab.page.get_by_role("button", name="Forget the token").click()
    await tab.page.get_by_role("button", name="Account: Viewer").wait_for()


@pytest.mark.long
async def test_a_killed_node_is_waited_for_and_live_again(open_tab: OpenTab, folder: Path) -> None:
    serving = Serving(folder, a_free_port())
    process = serving.start()
    try:
        (folder / "accounts.csv").write_text("key\n" + "".join(f"a{n}\n" for n in range(300)))
        add = ["item", "import", "accounts.csv", "--service", "dm_check", "--data", "./data"]
        serving.run(add)
        tab = await open_tab(serving.url.replace("ws://", "http://"))
        await tab.wait_for_text(SETTLED, "of 300 items")
        process.kill()
        process.wait()
        await tab.wait_for_text(".connection", "Reconnecting")
        await tab.wait_for_text(".connection", "last seen")
        await tab.wait_until_true("document.title === 'Server away · Coordinator'")
        await tab.page.locator("main.away").wait_for()
        await tab.wait_for_text(".obstacle", "The server does not answer.")
        await tab.wait_for_text(SETTLED, "of 300 items")  # what was known stays
        assert await tab.violations() == []
        process = serving.start()
        await tab.wait_until_live()
        assert await tab.page.locator(".obstacle").count() == 0
        (folder / "accounts.csv").write_text("key\nanother\n")
        serving.run(add)
        await tab.wait_for_text(SETTLED, "of 301 items")
        # The browser itself tells of connections that were refused meanwhile; of nothing else.
        expected = r"WebSocket connection to .* failed|Failed to load resource: net::ERR_CONNECTION_"
        tab.problems = [text for text in tab.problems if not re.match(expected, text)]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
