"""Operation from the browser: items are added, tokens made and revoked, and what was done is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.store.pool import Database
from tests.e2e.browser import PHONE
from tests.e2e.conftest import OpenTab
from tests.e2e.test_dashboard_clients import LAPTOP
from tests.e2e.test_dashboard_safety import as_role, confirm
from tests.harness import Server
from tests.serve.tools import value

LOOKS = pytest.mark.parametrize(("scheme", "size"), [("light", LAPTOP), ("dark", PHONE)], ids=["laptop", "phone"])


@LOOKS
async def test_pasted_items_are_added_and_bad_ones_named_by_their_line(
    server: Server, open_tab: OpenTab, database: Database, scheme: str, size: tuple[int, int]
) -> None:
    tab = await open_tab(server, "add-items", scheme=scheme, size=size)
    page = tab.page
    await tab.wait_for_text("main", "This needs the token of an operator")
    await as_role(tab, server, "operator")
    long_key = "k" * 300
    await page.get_by_label("Pasted items").fill(f"alice\nbob\n\n{long_key}\nbob")
    await page.get_by_label("Service").select_option("dm_check")
    await page.get_by_label("Priority").fill("0")
    await page.get_by_role("button", name="Add", exact=True).click()
    await tab.wait_for_text("[role=status]", "2 new, 0 known, 1 repeated, 1 refused")
    await tab.wait_for_text(".refused-lines li", "line 4")
    assert await tab.violations() == []
    assert await tab.overflow_pixels() == 0
    assert await value(database, "SELECT count(*) FROM item") == 2
    assert await value(database, "SELECT min(priority) FROM waiting") in (0, None)  # it may be in a bucket by now


@pytest.mark.long
async def test_a_file_is_sent_bit_by_bit_with_its_progress(
    server: Server, open_tab: OpenTab, database: Database, tmp_path: Path
) -> None:
    rows = [f'"account{n}",{n},"says ""hi"", {n}"' for n in range(12_000)]
    rows[4000] = '"open,1,2'
    rows[4001] = "one,two,three,four"
    rows[11_998] = "@ACCOUNT3,9007199254740993,"
    file = tmp_path / "accounts.csv"
    file.write_text("Handle,followers,bio\n" + "\n".join(rows), "utf-16")
    tab = await open_tab(server, "add-items")
    await as_role(tab, server, "operator")
    await tab.page.get_by_label("Or a file").set_input_files(file)
    await tab.page.get_by_role("button", name="Add", exact=True).click()
    await tab.wait_for_text("[role=status]", "Done. 100 % read: 11,997 new, 0 known, 1 repeated, 2 refused")
    await tab.wait_for_text("main", 'Read as CSV with "," between the columns, the key is in the column Handle.')
    await tab.wait_for_text(".refused-lines li", 'line 4,002 "open,1,2 "," was expected behind a quoted cell')
    await tab.wait_for_text(".refused-lines li", "4 cells, and the first line has 3")
    attributes = await value(database, "SELECT attributes FROM item WHERE key = 'account7'")
    assert attributes == {"followers": 7, "bio": 'says "hi", 7'}

    unclear = tmp_path / "unclear.csv"
    unclear.write_text("name;age\nalice;7\n")
    await tab.page.get_by_label("Or a file").set_input_files(unclear)
    await tab.page.get_by_role("button", name="Add", exact=True).click()
    await tab.wait_for_text("[role=alert]", "The first line names no key column")

    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"key": "from-json", "n": 1}\n{"no": 1}\n')
    await tab.page.get_by_label("Or a file").set_input_files(lines)
    await tab.page.get_by_role("button", name="Add", exact=True).click()
    await tab.wait_for_text("[role=status]", "1 new, 0 known, 1 refused")


@LOOKS
async def test_a_token_is_shown_once_works_and_is_revoked(
    server: Server, open_tab: OpenTab, scheme: str, size: tuple[int, int]
) -> None:
    tab = await open_tab(server, "tokens", scheme=scheme, size=size)
    page = tab.page
    await as_role(tab, server, "operator")
    await tab.wait_for_text("main", "This needs the token of an admin")
    await as_role(tab, server, "admin")
    await page.get_by_label("Role").select_option("viewer")
    await page.get_by_label("Label").fill("the wall")
    await page.get_by_label("Days").fill("30")
    await page.get_by_role("button", name="Make the token").click()
    token = await tab.text(".made-token code")
    await tab.wait_for_text("tbody tr:has-text('the wall')", "in 29 d")
    await tab.wait_until_loaded()
    assert await tab.violations() == []
    assert await tab.overflow_pixels() == 0
    viewer = await server.viewer(token=token)

    await page.get_by_role("button", name="I have it").click()
    assert token not in await page.content()
    await page.locator("tbody tr:has-text('the wall')").get_by_role("button", name="Revoke").click()
    await page.locator("dialog").get_by_role("button", name="Revoke").click()
    await tab.wait_for_text("tbody tr:has-text('the wall')", "revoked")
    assert await viewer.close_code() == 4502


async def test_a_service_is_added_of_a_plugin_by_its_schema(server: Server, open_tab: OpenTab) -> None:
    admin = await server.admin()
    await admin.add(3)
    tab = await open_tab(server, "add-service")
    page = tab.page
    await tab.wait_for_text("main", "This needs the token of an admin")
    await as_role(tab, server, "admin")
    await page.get_by_label("Plugin").select_option("generic")
    await tab.wait_for_text("[role=status]", "Still needed: a name")
    await page.get_by_label("Name").fill("links")
    await tab.wait_for_text("[role=status]", "Still needed: result_schema")
    schema = '{"type": "object", "properties": {"id": {"type": "integer", "maximum": 9007199254740993}}}'
    await page.get_by_label("result_schema").fill("{")
    await tab.wait_for_text("[role=alert]", "result_schema: expected JSON")
    await page.get_by_label("result_schema").fill(schema)
    await page.get_by_text("more settings").click()
    await page.get_by_label("bucket_size").fill("20001")
    await tab.check_fit()

    await page.get_by_role("button", name="Add service").click()
    await tab.wait_for_text("dialog tr", "bucket_size")
    await page.locator("dialog").get_by_role("button", name="Add service").click()
    await tab.wait_for_text("dialog [role=alert]", "settings.bucket_size")  # the server says what does not do
    await page.locator("dialog").get_by_role("button", name="Cancel").click()
    await page.get_by_label("bucket_size").fill("20")
    await confirm(tab, "Add service")
    await tab.wait_for_text("main h1", "links")
    await tab.wait_until_true("document.title === 'links · Coordinator'")
    added = await admin.ok("service.show", service="links")
    assert (added["plugin"], added["title"], added["settings"]["bucket_size"]) == ("generic", "Generic check", 20)
    assert added["settings"]["result_schema"]["properties"]["id"]["maximum"] == 2**53 + 1


@LOOKS
async def test_the_activity_log_tells_who_did_what(
    server: Server, open_tab: OpenTab, scheme: str, size: tuple[int, int]
) -> None:
    await (await server.admin()).ok("service.pause", service="dm_check")
    await (await server.admin()).refused("client.deactivate", client_id="nobody")
    tab = await open_tab(server, "activity", scheme=scheme, size=size)
    await tab.wait_for_text("main", "This needs the token of an operator")
    await as_role(tab, server, "operator")
    await tab.wait_for_text("tbody tr:has-text('service.pause')", "dm_check")
    await tab.wait_for_text("tbody tr:has-text('client.deactivate')", "not_found")
    await tab.wait_until_loaded()
    assert await tab.violations() == []
    assert await tab.overflow_pixels() == 0
    await tab.page.get_by_label("Action").fill("service.pause")
    await tab.wait_for_rows(1)
    await tab.open("services/dm_check")
    await confirm(tab, "Resume service")
    await tab.open("activity?action=service.resume")
    await tab.wait_for_text("tbody tr", "dm_check")
