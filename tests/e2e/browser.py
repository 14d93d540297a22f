"""A browser that looks at the dashboard, and what it complained of."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, Response, async_playwright

SOURCE = Path(__file__).parents[2] / "coordinator" / "dashboard" / "source"

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESK, PHONE = (1400, 900), (390, 844)

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
"""Levels A and AA."""

PATIENCE = 15_000
"""Milliseconds after which a test gives up on something that should be seen at once."""


def program(name: str) -> str:
    """The path of a program that the tests of the dashboard need; its lack is a failure."""
    found = shutil.which(name)
    assert found is not None, f"the tests of the dashboard need {name} (Debian's package of that name)"
    return found


def installed(where: Path) -> Path:
    """A copy of the dashboard's source with its packages, as the lock file has them."""
    copy = where / "source"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [program("npm"), "ci", "--ignore-scripts"], cwd=copy, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return copy


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


class Look:
    """One tab; `complaints` are the errors in its console, `foreign` the addresses that are not the node's."""

    def __init__(self, page: Page, url: str, axe: str) -> None:
        self.page = page
        self.url = url
        self._axe = axe
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("request", self._on_request)
        page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_error(self, fault: Error) -> None:
        self.complaints.append(str(fault))

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.foreign.append(request.url)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    async def go(self, place: str = "") -> None:
        """Open a place, such as `clients?state=active`, as a link from elsewhere would."""
        await self.page.goto(f"{self.url}/#/{place}")
        await self.page.locator("main h1, main .narrow").wait_for()

    async def live(self) -> None:
        """Wait until the connection is said to be live."""
        await self.page.locator(".connection.live").wait_for()

    async def settled(self) -> None:
        """Wait until nothing is still to be loaded, and no picture is still moving."""
        await self.until(
            "!document.querySelector('.loading, [aria-busy=true]') && document.getAnimations().length === 0"
        )

    async def until(self, expression: str) -> None:
        """Wait until that is true in the page; the browser's own way of waiting is not allowed to run there."""
        async with asyncio.timeout(PATIENCE / 1000):
            while not await self.page.evaluate(expression):
                await self.page.wait_for_timeout(50)

    async def rows(self, count: int) -> None:
        """Wait until the table has that many rows."""
        await self.until(f"document.querySelectorAll('tbody tr').length === {count}")

    async def violations(self) -> list[str]:
        """What axe-core says of the page as it stands."""
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(self._axe)
        found = await self.page.evaluate(f"axe.run({{runOnly: {json.dumps(RULES)}}}).then(found => found.violations)")
        return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found]

    async def too_wide(self) -> int:
        """Pixels that the page is wider than the window."""
        width = await self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return max(0, int(width))

    async def text(self, selector: str) -> str:
        """What one element says."""
        return await self.page.locator(selector).inner_text()

    async def says(self, selector: str, words: str) -> None:
        """Wait until an element says that, among other things."""
        await self.page.locator(selector, has_text=words).first.wait_for()

    async def until_changed(self, selector: str, before: str) -> str:
        """Wait until an element says something else, and return that."""
        async with asyncio.timeout(PATIENCE / 1000):
            while (now := await self.text(selector)) == before:
                await self.page.wait_for_timeout(50)
        return now
