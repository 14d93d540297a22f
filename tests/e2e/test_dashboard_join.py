"""The page that tells how to take part."""

from __future__ import annotations

import pytest

from tests.e2e.browser import PHONE
from tests.e2e.conftest import OpenTab
from tests.e2e.test_dashboard_clients import LAPTOP
from tests.harness import Server


@pytest.mark.parametrize(("scheme", "size"), [("light", LAPTOP), ("dark", PHONE)], ids=["laptop", "phone"])
async def test_the_command_is_of_the_chosen_service(
    server: Server, open_tab: OpenTab, scheme: str, size: tuple[int, int]
) -> None:
    settings = {"result_schema": {"type": "object"}}
    await (await server.admin()).ok("service.add", service="letters", plugin="generic", settings=settings)
    tab = await open_tab(server, "join", scheme=scheme, size=size)
    page = tab.page
    checker = "--checker coordinator.client.x_api:dm_check"
    await tab.wait_for_text(".command code", f"coordinator work --server {server.url} --service dm_check {checker}")
    await page.get_by_label("What to check").select_option("letters")
    await page.get_by_label("Your name").fill("ada-7")
    expected = f"coordinator work --server {server.url} --service letters --exec ./check.sh --screen-name ada-7"
    assert await tab.text(".command code") == expected
    await page.get_by_label("Your name").fill("ada; rm")
    assert await tab.text(".command code") == expected.removesuffix(" --screen-name ada-7")
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as it is without TLS
    await page.get_by_role("button", name="Copy").click()
    await tab.wait_for_text(".toasts", "The browser does not let this page copy: please mark the command and copy it.")
    assert await tab.violations() == []
    assert await tab.overflow_pixels() == 0
