"""Takes the README's pictures of the dashboard: `python -m tests.e2e.screenshots`.

A real node and real sessions; what is checked, and by whom, is made up.  It takes six minutes, of which the chart
shows the last five.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from playwright.async_api import Browser

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.observe import logs
from tests.e2e.browser import chromium
from tests.harness import Server, Volunteer

IMAGES = Path(__file__).parents[2] / ".images"
SIZE = (1180, 740)
WORKED = 330.0
ITEMS, BUCKET = 60_000, 30
SERVICES = ["dm_check", "weekly_check"]
PEOPLE = [
    "ada",
    "grace",
    "linus",
    "margaret",
    "edsger",
    "barbara",
    "donald",
    "frances",
    "john",
    "hedy",
    "alan",
    "radia",
]


async def work(peer: Volunteer, service: str, chance: random.Random) -> None:
    """Check buckets at a pace of one's own; now and then give one back."""
    seconds = chance.uniform(2, 6)
    while True:
        bucket = await peer.bucket(service)
        await asyncio.sleep(chance.uniform(0.5, 1.5) * seconds)
        if chance.random() < 0.02:
            await peer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
        else:
            await peer.submit(bucket, chance.choice(["DM", "NON_DM"]))


async def crew(server: Server) -> list[asyncio.Task[None]]:
    """Everyone at work, in one of the services."""
    chance = random.Random(7)
    admin = await server.admin()
    await admin.ok("service.add", service="weekly_check", plugin="dm_check", title="DM check, each week again")
    for service in SERVICES:
        await admin.ok("service.configure", service=service, settings={"bucket_size": BUCKET})
    for start in range(0, ITEMS, 10_000):
        await admin.add(10_000, prefix=f"account{start}_", services=SERVICES)
    tasks = []
    for number, name in enumerate(PEOPLE):
        peer = await server.client()
        await peer.hello(name)
        joined = [{"service": service, "profile": {"source": name}} for service in SERVICES]
        await peer.ok("register", screen_name=name, services=joined)
        tasks.append(asyncio.create_task(work(peer, SERVICES[number % 3 == 0], chance)))
    return tasks


async def take(browser: Browser, url: str, place: str, scheme: str, name: str) -> None:
    """One picture."""
    context = await browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": SIZE[0], "height": SIZE[1]},
        reduced_motion="reduce",
        locale="en-GB",
    )
    page = await context.new_page()
    await page.goto(f"{url}/#/{place}")
    await page.locator(".connection.live").wait_for()
    await page.wait_for_timeout(3000)
    await page.screenshot(path=IMAGES / f"{name}.png")


async def pictures(data: Path) -> None:
    """Let them work, and look."""
    settings = Settings(data=data, port=0, ops_port=0, node_name="node-1")
    async with Node(settings) as node, AsyncExitStack() as stack:
        tasks = await crew(Server(node, node.parts.core.database, stack))
        await asyncio.sleep(WORKED)
        url = f"http://127.0.0.1:{node.port}"
        async with chromium() as browser:
            await take(browser, url, "", "light", "overview")
            await take(browser, url, "clients", "dark", "clients")
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def main() -> None:
    """In a data folder of its own."""
    logs.configure("console", "warning")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="coordinator-pictures-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # the account that Postgres runs as has to pass
        asyncio.run(pictures(Path(folder, "data")))


if __name__ == "__main__":
    main()
