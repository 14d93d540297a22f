"""Fixtures of the browser."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.e2e import programs
from tests.e2e.browser import DESKTOP, Tab, chromium, install_source
from tests.harness import Server

OpenTab = Callable[..., Awaitable[Tab]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out before anything is made for it; said from here, all that are left out are one line."""
    if "browser" in getattr(item, "fixturenames", ()):
        programs.chromium()


@pytest.fixture(scope="session")
def dashboard_source(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Copy the dashboard's source and install its packages, once in a run, whichever worker comes first."""
    of_worker = tmp_path_factory.getbasetemp()
    shared = of_worker if worker_id == "master" else of_worker.parent
    with (shared / "dashboard.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install_source(shared / "dashboard")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def open_tab(browser: Browser, dashboard_source: Path) -> AsyncIterator[OpenTab]:
    """Open tabs with `await open_tab(server, "clients")`; at the end none may have had a problem."""
    axe = (dashboard_source / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    tabs: list[Tab] = []

    async def open_one(
        server: Server | str, address: str = "", *, scheme: str = "light", size: tuple[int, int] = DESKTOP
    ) -> Tab:
        url = server if isinstance(server, str) else server.url.replace("ws://", "http://")
        context = await browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": size[0], "height": size[1]},
            reduced_motion="reduce",
            locale="en-GB",
        )

        tab = Tab(await context.new_page(), url, axe)
        tabs.append(tab)
        await tab.open(address)
        return tab

    yield open_one

    for tab in tabs:
        assert tab.problems == []
        assert tab.foreign_requests == []
