"""Chromium, and one tab of it that shows the dashboard."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, Response, async_playwright

from tests.bounded import within
from tests.e2e import programs
from tests.needed import leave_out

SOURCE = Path(__file__).parents[2] / "coordinator" / "dashboard" / "source"

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESKTOP, PHONE = (1400, 900), (390, 844)
"""Window sizes in pixels."""

WCAG_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
"""axe-core's names for the rules of levels A and AA."""

CUT_TEXTS = """(() => {
    const hides = overflow => ['hidden', 'clip'].includes(overflow);
    const hasText = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim() !== '');
    const uncued = element => {
        if (element.clientWidth <= 1 || element.matches('input, textarea') || !element.checkVisibility()) return false;
        const style = getComputedStyle(element);
        const wide = element.scrollWidth > element.clientWidth + 1;
        if (hides(style.overflowX) && wide) return style.textOverflow !== 'ellipsis';
        if (hides(style.overflowY) && element.scrollHeight > element.clientHeight + 4) return true;
        if (['auto', 'scroll'].includes(style.overflowX)) return wide && getComputedStyle(element).maskImage === 'none';
        return wide && hasText(element);
    };
    return [...document.body.querySelectorAll('*')].filter(uncued).map(element => element.outerHTML.slice(0, 200));
})()"""
"""Elements of which something is cut, and nothing shows it: neither dots nor an edge that fades; and texts that stand
out of their places, over what is beside them."""

TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
"""Until what watches sizes has seen the new ones."""

WAIT_LIMIT_MS = 15_000
"""Milliseconds after which a wait for something that should be there at once fails."""

EVALUATED_WITHIN = 60.0
"""Seconds; axe-core takes some for a large page when other tests run."""


def install_source(folder: Path) -> Path:
    """Copy the dashboard's source into a folder and install its packages there, as the lock file names them.

    A copy that is there, packages and all, is left as it is.
    """
    copy, installed = folder / "source", folder / "installed"
    if not installed.exists():
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
        if (fault := programs.install(copy)) is not None:
            leave_out(fault)
        installed.touch()
    return copy


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the machine's own, or the one that npm has."""
    found = programs.chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=found.path, args=CHROMIUM_FLAGS, env={**os.environ, **found.environment}
        )
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """One tab of the browser.

    `problems` are the errors and warnings of its console and the answers with an error status;
    `foreign_requests` are the addresses it asked for that are not the node's.
    """

    def __init__(self, page: Page, url: str, axe: str) -> None:
        self.page = page
        self.url = url
        self._axe = axe
        self.problems: list[str] = []
        self.foreign_requests: list[str] = []

        page.set_default_timeout(WAIT_LIMIT_MS)
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("request", self._on_request)
        page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _on_error(self, fault: Error) -> None:
        self.problems.append(str(fault))

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.foreign_requests.append(request.url)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status} {response.url}")

    async def open(self, address: str = "") -> None:
        """Open an address within the dashboard, such as `clients?state=active`, as a link from elsewhere would."""
        await self.page.goto(f"{self.url}/#/{address}")
        await self.page.locator("main h1, main .narrow").wait_for()

    async def wait_until_live(self) -> None:
        """Wait until the page says that its connection is live."""
        await self.page.locator(".connection.live").wait_for()

    async def wait_until_loaded(self) -> None:
        """Wait until nothing is being loaded and no animation runs."""
        await self.wait_until_true(
            "!document.querySelector('.loading, [aria-busy=true]') && document.getAnimations().length === 0"
        )

    async def wait_until_true(self, expression: str) -> None:
        """Wait until a JavaScript expression is true in the page.

        Playwright's `wait_for_function` evaluates a string there, which the page's security policy forbids.
        """
        async with asyncio.timeout(WAIT_LIMIT_MS / 1000):
            while not await self.evaluate(expression):
                await self.page.wait_for_timeout(50)

    async def evaluate(self, expression: str, argument: object = None) -> Any:
        """Return what a JavaScript expression is in the page, or what a function of it returns.

        Playwright itself would wait without a limit.
        """
        return await within(self.page.evaluate(expression, argument), EVALUATED_WITHIN)

    async def wait_for_rows(self, count: int) -> None:
        """Wait until the table has `count` rows."""
        await self.wait_until_true(f"document.querySelectorAll('tbody tr').length === {count}")

    async def violations(self) -> list[str]:
        """Return the violations that axe-core finds in the page as it is now."""
        if not await self.evaluate("'axe' in window"):
            await self.evaluate(self._axe)
        violations = await self.evaluate(
            f"axe.run({{runOnly: {json.dumps(WCAG_TAGS)}}}).then(results => results.violations)"
        )
        return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in violations]

    async def overflow_pixels(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        width = await self.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return max(0, int(width))

    async def check_fit(self) -> None:
        """Check at 1280 and 390 px that nothing is too wide, no text is cut without a cue, and all is accessible."""
        for width, height in ((1280, 800), PHONE):
            await self.page.set_viewport_size({"width": width, "height": height})
            await self.wait_until_loaded()
            await self.evaluate(TWO_FRAMES)
            assert (width, await self.overflow_pixels()) == (width, 0)
            faults = [*await self.evaluate(CUT_TEXTS), *await self.violations()]
            assert faults == [], (width, faults)
        await self.page.set_viewport_size({"width": 1280, "height": 800})

    async def text(self, selector: str) -> str:
        """Return the text of one element."""
        return await self.page.locator(selector).inner_text()

    async def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until an element contains a text."""
        await self.page.locator(selector, has_text=text).first.wait_for()

    async def wait_for_other_text(self, selector: str, before: str) -> str:
        """Wait until the text of an element is not `before`, and return the new text."""
        async with asyncio.timeout(WAIT_LIMIT_MS / 1000):
            while (now := await self.text(selector)) == before:
                await self.page.wait_for_timeout(50)
        return now
