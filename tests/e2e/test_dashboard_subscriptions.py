"""Subscriptions of the dashboard: those of the page that is shown, and no others."""

from __future__ import annotations

import json

from playwright.async_api import WebSocket

from tests.conftest import StartServer
from tests.e2e.browser import Tab
from tests.e2e.conftest import OpenTab
from tests.harness import Server
from tests.serve.tools import eventually


class SubscribedTopics:
    """The topics that the node last confirmed to a tab, read from the frames of its newest WebSocket."""

    def __init__(self, tab: Tab) -> None:
        self.topics: set[str] = set()
        tab.page.on("websocket", self._on_websocket)

    def _on_websocket(self, socket: WebSocket) -> None:
        self.topics = set()
        socket.on("framereceived", self._on_frame)

    def _on_frame(self, frame: str | bytes) -> None:
        message = json.loads(frame)
        if message["type"] in ("subscribed", "unsubscribed"):
            self.topics = set(message["topics"])

    async def wait_until(self, *expected: str) -> None:
        """Wait until the node has confirmed exactly these topics."""

        async def confirmed() -> bool:
            return self.topics == set(expected)

        await eventually(confirmed, f"the subscriptions should be {set(expected)}")


async def change_page(tab: Tab, address: str, title: str) -> None:
    """Change the page as a link within the dashboard does, with the same session."""
    await tab.evaluate("address => { location.hash = `#/${address}`; }", address)
    await tab.wait_for_text("main h1", title)


async def test_a_page_that_is_left_leaves_no_subscription(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server)
    subscribed = SubscribedTopics(tab)
    await tab.page.reload()
    await subscribed.wait_until("overview", "services")

    await change_page(tab, "buckets", "Buckets")
    await subscribed.wait_until("buckets", "services")
    await change_page(tab, "nodes", "Nodes and database")
    await subscribed.wait_until("nodes", "database")
    await change_page(tab, "leaderboard", "Leaderboard")
    await subscribed.wait_until()


async def test_a_frozen_view_is_subscribed_only_until_a_page_has_its_first_figures(
    server: Server, open_tab: OpenTab
) -> None:
    tab = await open_tab(server)
    subscribed = SubscribedTopics(tab)
    await tab.page.reload()
    await tab.wait_for_text(".lead", "no items have been added")
    await tab.page.get_by_role("button", name="Freeze").click()
    await subscribed.wait_until()

    await change_page(tab, "buckets", "Buckets")
    await tab.wait_for_text(".lead", "0 open buckets in all")
    await subscribed.wait_until()
    await tab.page.keyboard.press("f")
    await subscribed.wait_until("buckets", "services")


async def test_requests_that_come_too_fast_are_repeated(start_server: StartServer, open_tab: OpenTab) -> None:
    server = await start_server(messages_per_minute=120)  # a burst of 12, then two in a second
    tab = await open_tab(server)
    subscribed = SubscribedTopics(tab)
    await tab.page.reload()
    await tab.wait_until_live()

    for _ in range(3):
        await change_page(tab, "clients", "Clients")
        await change_page(tab, "nodes", "Nodes and database")
    await subscribed.wait_until("nodes", "database")
    await tab.wait_for_text("tbody tr", "live")
