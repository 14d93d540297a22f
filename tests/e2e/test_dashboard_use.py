"""How the dashboard is used: keyboard, theme, freeze, hidden tabs, tokens, and a node that dies."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from playwright.async_api import WebSocket

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.conftest import OpenLook
from tests.e2e.crew import at_work
from tests.e2e.test_readme import Serving, a_free_port, folder
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


async def test_the_keyboard_reaches_everything(server: Server, open_look: OpenLook) -> None:
    look = await open_look(server)
    page = look.page
    await look.live()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "content"
    await page.keyboard.type("gc")
    await look.says("main h1", "Clients")
    assert await page.evaluate("document.activeElement.tagName") == "H1"
    await page.keyboard.press("/")
    await page.keyboard.type("gs?f")
    assert await page.locator("input[type=search]").input_value() == "gs?f"
    await look.says("main h1", "Clients")
    await page.keyboard.press("Tab")
    await page.locator("main h1").focus()
    await page.keyboard.press("?")
    await look.says("dialog", "Keyboard")
    assert await look.violations() == []
    await page.get_by_label("Shortcuts are on").uncheck()
    await page.keyboard.press("Escape")
    await page.locator("dialog").wait_for(state="detached")
    await page.keyboard.type("gs")
    await page.get_by_role("link", name="Services", exact=True).focus()
    assert await page.locator("main h1").inner_text() == "Clients"


async def test_the_theme_is_the_systems_until_another_is_chosen(server: Server, open_look: OpenLook) -> None:
    look = await open_look(server, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = await look.page.evaluate(ground)
    button = look.page.get_by_role("button", name="Theme")
    await button.click()
    await look.says(".tools", "Light")
    light = await look.page.evaluate(ground)
    assert light != dark
    await look.page.reload()
    await look.says(".tools", "Light")
    assert await look.page.evaluate(ground) == light
    await button.click()
    assert await look.page.evaluate(ground) == dark


async def test_a_frozen_view_holds_still(node: Server, open_look: OpenLook, database: Database) -> None:
    async with at_work(node) as crew:
        look = await open_look(node)
        await look.says(SETTLED, "items")
        await look.page.get_by_role("button", name="Freeze").click()
        held = await look.text(SETTLED)

        async def settled() -> int:
            stats = await crew.admin.ok("stats")
            return int(next(row["settled"] for row in stats["services"] if row["service"] == "dm_check"))

        before = await settled()

        async def moved() -> bool:
            return await settled() > before + 100

        await eventually(moved, "the worker does not work")
        assert await look.text(SETTLED) == held
        await look.page.keyboard.press("f")
        await look.until_changed(SETTLED, held)


async def test_a_hidden_tab_costs_the_server_nothing(server: Server, open_look: OpenLook) -> None:
    look = await open_look(server)
    sockets: list[WebSocket] = []
    look.page.on("websocket", lambda one: sockets.append(one))
    await look.page.reload()
    await look.live()
    await look.page.evaluate(HIDE, True)
    await look.says(".connection", "Paused")
    if not sockets[-1].is_closed():
        await sockets[-1].wait_for_event("close")
    await look.page.evaluate(HIDE, False)
    await look.live()
    assert len(sockets) == 2


async def test_a_token_is_asked_for_where_viewers_need_one(start_server: StartServer, open_look: OpenLook) -> None:
    server = await start_server(viewers="token")
    look = await open_look(server)
    await look.says("main", "The server does not let this page look")
    page = look.page
    await page.locator("input[type=password]").fill("wrong")
    await page.get_by_role("button", name="Use this token").click()
    await look.says("main", "The server does not let this page look")
    assert await look.violations() == []
    await page.locator("input[type=password]").fill(await server.token("viewer"))
    await page.get_by_role("button", name="Use this token").click()
    await look.live()
    await page.reload()
    await look.live()
    kept = await page.evaluate("[Object.keys(localStorage).length, Object.keys(sessionStorage)]")
    assert kept == [0, ["coordinator.token"]]
    assert "token" not in page.url


async def test_a_killed_node_is_waited_for_and_live_again(open_look: OpenLook, folder: Path) -> None:
    serving = Serving(folder, a_free_port())
    process = serving.start()
    try:
        (folder / "accounts.csv").write_text("key\n" + "".join(f"a{n}\n" for n in range(300)))
        add = ["item", "import", "accounts.csv", "--service", "dm_check", "--data", "./data"]
        serving.run(add)
        look = await open_look(serving.url.replace("ws://", "http://"))
        await look.says(SETTLED, "of 300 items")
        process.kill()
        process.wait()
        await look.says(".connection", "Reconnecting")
        await look.says(SETTLED, "of 300 items")  # what was known stays
        assert await look.violations() == []
        process = serving.start()
        await look.live()
        (folder / "accounts.csv").write_text("key\nanother\n")
        serving.run(add)
        await look.says(SETTLED, "of 301 items")
        # The browser itself tells of connections that were refused meanwhile; of nothing else.
        look.complaints = [one for one in look.complaints if not re.match(r"WebSocket connection to .* failed", one)]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
