"""Take the README's pictures of the dashboard: `python -m tests.e2e.screenshots`.

The node and the sessions are real, the accounts and the volunteers are made up.  It takes six minutes, of which the
chart shows the last five.
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

IMAGE_FOLDER = Path(__file__).parents[2] / ".images"
WINDOW_SIZE = (1180, 740)
WORK_SECONDS = 330.0
ITEMS, BUCKET_SIZE = 60_000, 30
SERVICES = ["dm_check", "weekly_check"]
NAMES = [
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


async def work(volunteer: Volunteer, service: str, rng: random.Random) -> None:
    """Settle buckets at a random pace, and return some, until cancelled."""
    mean_seconds = rng.uniform(2, 6)
    while True:
        bucket = await volunteer.bucket(service)
        await asyncio.sleep(rng.uniform(0.5, 1.5) * mean_seconds)
        if rng.random() < 0.02:
            await volunteer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
        else:
            await volunteer.submit(bucket, rng.choice(["DM", "NON_DM"]))


async def start_volunteers(server: Server) -> list[asyncio.Task[None]]:
    """Add services and items, and start one task for each volunteer."""
    rng = random.Random(7)
    admin = await server.admin()
    await admin.ok("service.add", service="weekly_check", plugin="dm_check", title="DM check, each week again")
    for service in SERVICES:
        await admin.ok("service.configure", service=service, settings={"bucket_size": BUCKET_SIZE})
    for start in range(0, ITEMS, 10_000):
        await admin.add(10_000, prefix=f"account{start}_", services=SERVICES)

    tasks = []
    for number, name in enumerate(NAMES):
        volunteer = await server.client()
        await volunteer.hello(name)
        memberships = [{"service": service, "profile": {"source": name}} for service in SERVICES]
        await volunteer.ok("register", screen_name=name, services=memberships)
        tasks.append(asyncio.create_task(work(volunteer, SERVICES[number % 3 == 0], rng)))
    return tasks


async def take_picture(browser: Browser, url: str, address: str, scheme: str, name: str) -> None:
    """Save a picture of one page of the dashboard as `name`.png."""
    context = await browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": WINDOW_SIZE[0], "height": WINDOW_SIZE[1]},
        reduced_motion="reduce",
        locale="en-GB",
    )

    page = await context.new_page()
    await page.goto(f"{url}/#/{address}")
    await page.locator(".connection.live").wait_for()
    await page.wait_for_timeout(3000)
    await page.screenshot(path=IMAGE_FOLDER / f"{name}.png")


async def take_pictures(data: Path) -> None:
    """Let volunteers work on a node for `WORK_SECONDS`, and take all pictures."""
    settings = Settings(data=data, port=0, ops_port=0, node_name="node-1")
    async with Node(settings) as node, AsyncExitStack() as stack:
        tasks = await start_volunteers(Server(node, node.parts.core.database, stack))
        await asyncio.sleep(WORK_SECONDS)
        url = f"http://127.0.0.1:{node.port}"
        async with chromium() as browser:
            await take_picture(browser, url, "", "light", "overview")
            await take_picture(browser, url, "clients", "dark", "clients")
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def main() -> None:
    """Take all pictures, with a temporary data folder."""
    logs.configure("console", "warning")
    IMAGE_FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="coordinator-pictures-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # the account that Postgres runs as has to pass
        asyncio.run(take_pictures(Path(folder, "data")))


if __name__ == "__main__":
    main()
