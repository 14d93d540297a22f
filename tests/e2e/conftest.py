"""The browser's fixtures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.e2e.browser import DESK, Look, chromium, installed
from tests.harness import Server

OpenLook = Callable[..., Awaitable[Look]]


@pytest.fixture(scope="session")
def dashboard_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the dashboard's source with its packages installed."""
    return installed(tmp_path_factory.mktemp("dashboard"))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def open_look(browser: Browser, dashboard_source: Path) -> AsyncIterator[OpenLook]:
    """Opens tabs: `await open_look(server, "clients")`; none may have anything to complain of at the end."""
    axe = (dashboard_source / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    looks: list[Look] = []

    async def start(
        server: Server | str, place: str = "", *, scheme: str = "light", size: tuple[int, int] = DESK
    ) -> Look:
        url = server if isinstance(server, str) else server.url.replace("ws://", "http://")
        context = await browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": size[0], "height": size[1]},
            reduced_motion="reduce",
            locale="en-GB",
        )
        look = Look(await context.new_page(), url, axe)
        looks.append(look)
        await look.go(place)
        return look

    yield start
    for look in looks:
        assert look.complaints == []
        assert look.foreign == []
