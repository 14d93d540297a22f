"""The dashboard behind a reverse proxy: under a path of its own, and where a proxy hides what the node has to know."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from coordinator.client import Client
from tests.bounded import within
from tests.conftest import StartServer
from tests.e2e.conftest import OpenTab
from tests.e2e.reverse_proxy import Manners, reverse_proxy
from tests.e2e.test_dashboard_safety import as_role

OBSTACLE = ".obstacle"


@pytest.mark.parametrize("manners", [Manners(), Manners(own_host=True, tells_host=True)])
async def test_it_works_under_a_path_of_its_own(
    start_server: StartServer, open_tab: OpenTab, tmp_path: Path, manners: Manners
) -> None:
    server = await start_server(trusted_proxies="127.0.0.1", viewers="open", registration="open")
    admin = await server.admin()
    await admin.add(1, services=["dm_check"])
    worker = await server.volunteer("worker")
    await worker.submit(await worker.bucket())
    async with reverse_proxy(server.node.port, manners) as url:
        tab = await open_tab(url, "services")
        await tab.wait_until_live()
        await tab.wait_for_text("main", "dm_check")

        await tab.page.get_by_role("link", name="dm_check").click()
        await tab.page.get_by_role("tab", name="Results").click()
        async with tab.page.expect_download() as saved:
            await tab.page.get_by_role("button", name="Save as CSV").click()
        await (await saved.value).save_as(tmp_path / "results.csv")
        assert "account0" in (tmp_path / "results.csv").read_text()

        await tab.open("join")
        words = shlex.split(await tab.text(".command code"))
        address = words[words.index("--server") + 1]
        assert address == url.replace("http://", "ws://")
        async with Client(address, data=tmp_path / "daemon") as client:  # as the command would
            await within(client.welcome(), 10)

        await as_role(tab, server, "operator")
        await tab.open("add-items")
        await tab.page.get_by_label("Pasted items").fill("bob")
        await tab.page.get_by_role("button", name="Add", exact=True).click()
        await tab.wait_for_text("[role=status]", "1 new, 0 known, 0 refused")


@pytest.mark.parametrize(
    ("manners", "said"),
    [
        (Manners(own_host=True), "A proxy has to pass on the host that the browser named"),
        (Manners(without_upgrade=True), "has to pass on the headers Upgrade and Connection"),
    ],
)
async def test_it_says_why_no_connection_comes_about(
    start_server: StartServer, open_tab: OpenTab, manners: Manners, said: str
) -> None:
    server = await start_server()
    async with reverse_proxy(server.node.port, manners) as url:
        tab = await open_tab(url)
        await tab.wait_for_text(OBSTACLE, "No connection to the server.")
        await tab.wait_for_text(OBSTACLE, said)
        assert await tab.violations() == []
        tab.problems.clear()  # the browser tells of each refusal
