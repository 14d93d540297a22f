"""The pages of an item and of a bucket, and the tabs of a service: what they show, and what may be done there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from playwright.async_api import Page

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.conftest import OpenTab
from tests.e2e.test_dashboard_safety import as_role, confirm
from tests.harness import Server
from tests.serve.tools import configure, execute, value

LONG_KEY, LONG_ID = "k" * 58 + "-00001", "c" * 58 + "-00001"


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node on which clients of long ids have settled a bucket of three, given one back, and hold one."""
    await configure(database, bucket_size=3, newcomer_buckets=9)
    server = await start_server()
    admin = await server.admin()
    items = [{"key": f"account{n}", "followers": n} for n in range(30)]
    items[0] = {"key": LONG_KEY, "followers": 7, "about": "x" * 300, "tags": ["a", "b"], "id": 2**53 + 1}
    await admin.ok("item.add", items=items, services=["dm_check"])
    volunteer = await server.volunteer(LONG_ID)
    await volunteer.submit(await volunteer.bucket())
    returned = await volunteer.bucket()
    await volunteer.ok("release", bucket_id=returned["bucket_id"], claim=returned["claim"])
    await (await server.volunteer("holder")).bucket()
    return server


async def settled_item(database: Database) -> tuple[int, str]:
    """An item that is settled, and the bucket through which it was."""
    query = "SELECT r.item_id, k.bucket_id::text FROM result r JOIN claim k USING (claim_id) LIMIT 1"
    async with database.connection() as db:
        row = await db.fetchrow(query)
    return row["item_id"], row["bucket_id"]


async def followed_account(node: Server) -> int:
    """The item of an account that sixty others follow."""
    admin, peer = await node.admin(), await node.volunteer("follower")
    await admin.ok("item.add", items=[{"key": "star"}], services=["follower_check"])
    await peer.ok("join", service="follower_check")
    bucket = await peer.bucket("follower_check")
    star = int(bucket["items"][0]["item"])
    accounts = [{"key": f"{'f' * 50}{n}"} for n in range(60)]
    results = [{"item": star, "accounts": accounts}]
    await peer.ok("submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=results, final=True)
    return star


@pytest.mark.long
async def test_an_item_is_shown_with_all_that_became_of_it(node: Server, open_tab: OpenTab, database: Database) -> None:
    item = await value(database, "SELECT item_id FROM item WHERE key = $1", LONG_KEY)
    tab = await open_tab(node, f"items/{item}")
    await tab.wait_for_text("main h1", LONG_KEY)
    await tab.wait_until_true(f"document.title === '{LONG_KEY} · Coordinator'")
    await tab.wait_for_text(".attributes", "followers")
    await tab.wait_for_text(".attributes", str(2**53 + 1))
    await tab.check_fit()

    star = await followed_account(node)
    await tab.open(f"items/{star}")
    await tab.wait_for_text(".ties div", "follow it: 60")
    await tab.wait_for_text(".ties div", "and 12 more")  # a drawing has room for some dozens
    assert await tab.page.locator(".follow-graph circle").count() == 49
    await tab.check_fit()

    settled, bucket = await settled_item(database)
    await tab.open(f"items/{settled}")
    await tab.wait_for_text("tbody tr", "settled")
    assert await tab.page.locator(".follow-graph").count() == 0
    await tab.wait_for_text("tbody tr", '{"dm":"DM"}')
    await tab.wait_for_text("tbody tr", LONG_ID)
    assert await tab.page.get_by_role("button", name="Check again").count() == 0  # an onlooker may not
    assert await tab.page.get_by_text("In open buckets").count() == 0
    await tab.page.locator("tbody a", has_text=bucket[:8]).click()
    await tab.wait_for_text("main h1", bucket)

    await execute(
        database,
        "INSERT INTO item (item_id, key) OVERRIDING SYSTEM VALUE VALUES ($1, 'rounded'), ($1 + 1, 'exact')",
        2**53,
    )
    await tab.open(f"items/{2**53 + 1}")
    await tab.wait_for_text("main h1", "exact")
    await tab.wait_for_text(".head-row", str(2**53 + 1))
    await tab.open("items/999999")
    await tab.wait_for_text("main", "There is no such item")
    await tab.open("items/nothing")
    await tab.wait_for_text("main", "There is no such item")


@pytest.mark.long
async def test_an_operator_checks_prioritises_and_retries(node: Server, open_tab: OpenTab, database: Database) -> None:
    item, _ = await settled_item(database)
    tab = await open_tab(node, f"items/{item}")
    await as_role(tab, node, "operator")
    await tab.wait_for_text("main", "It is in no open bucket")
    await confirm(tab, "Check again")
    await tab.wait_for_text("tbody tr", "ready")
    await tab.page.locator("section", has_text="In open buckets").locator("tbody tr").first.wait_for()
    await tab.check_fit()

    returned = await value(
        database, "SELECT i.items[1] FROM bucket_items i JOIN claim k USING (bucket_id) WHERE k.ended = 'released'"
    )
    await tab.open(f"items/{returned}")
    await tab.wait_for_text("section tbody tr", "given back")

    await execute(
        database,
        "INSERT INTO quarantine (service_id, item_id, attempts, bucket_id)"
        " SELECT service_id, item_id, 4, (SELECT bucket_id FROM claim WHERE ended = 'released') FROM result",
    )
    await execute(database, "UPDATE claim SET ended = 'cut_off' WHERE ended = 'released'")
    await tab.open("services/dm_check?tab=items&state=quarantined")
    await tab.wait_for_text("tbody tr", "after 4 failed attempts: cut off 1 time")
    await tab.check_fit()
    await confirm_first(tab.page, "Retry")
    await tab.page.locator("dialog").get_by_role("button", name="Retry", exact=True).click()
    await tab.page.locator("dialog").wait_for(state="detached")
    await tab.wait_for_rows(await value(database, "SELECT count(*) FROM quarantine"))
    await confirm(tab, "Retry these 2")
    await tab.wait_for_text("main", "No item is like that")


async def confirm_first(page: Page, name: str) -> None:
    """Press the first of several buttons of one name."""
    await page.get_by_role("button", name=name, exact=True).first.click()
    await page.get_by_role("heading", name=f"{name}?", exact=True).wait_for()


@pytest.mark.long
async def test_a_bucket_has_its_claims_items_and_results(node: Server, open_tab: OpenTab, database: Database) -> None:
    _, bucket = await settled_item(database)
    tab = await open_tab(node, f"buckets/{bucket}")
    await tab.wait_for_text("tbody tr", LONG_ID)
    await tab.wait_for_text("tbody tr", "all settled")
    await tab.check_fit()
    await tab.page.get_by_role("tab", name="Claims").press("ArrowRight")
    await tab.wait_for_text("main", "For operators only")
    assert "tab=items" in tab.page.url
    await tab.page.get_by_role("tab", name="Items").press("ArrowRight")
    await tab.wait_for_rows(3)
    await tab.check_fit()

    await tab.open("buckets?state=claimed")
    await as_role(tab, node, "operator")
    await tab.wait_for_rows(1)
    assert await tab.page.get_by_role("columnheader", name="Claims").count() == 0
    await tab.page.locator("tbody th a").click()
    await tab.page.get_by_role("tab", name="Items").click()
    await tab.wait_for_rows(3)
    await tab.wait_for_text("tbody tr", "claimed")
    await confirm(tab, "Release")
    await tab.wait_for_text(".head-row", "ready")
    await tab.page.get_by_role("tab", name="Claims").click()
    await tab.wait_for_text("tbody tr", "taken by an operator")
    await tab.open("buckets/nothing")
    await tab.wait_for_text("main", "There is no such bucket")


@pytest.mark.long
async def test_results_are_filtered_and_saved(
    node: Server, open_tab: OpenTab, database: Database, tmp_path: Path
) -> None:
    await execute(database, "UPDATE item SET key = '=1+1' WHERE item_id = (SELECT min(item_id) FROM result)")
    other = await node.volunteer("other")
    await other.submit(await other.bucket(), "NON_DM")
    tab = await open_tab(node, "services/dm_check")
    await tab.page.get_by_role("tab", name="Now").press("End")
    assert "tab=settings" in tab.page.url
    await tab.page.get_by_role("tab", name="Settings").press("ArrowLeft")
    await tab.page.get_by_role("tab", name="Clients").press("ArrowLeft")
    await tab.wait_for_rows(6)
    assert "NON_DM" in await tab.page.locator("tbody tr").first.inner_text()
    await tab.check_fit()

    async with tab.page.expect_download() as saved:
        await tab.page.get_by_role("button", name="Save as CSV").click()
    await (await saved.value).save_as(tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [row["dm"] for row in rows] == ["NON_DM"] * 3 + ["DM"] * 3
    assert "'=1+1" in {row["key"] for row in rows}

    await tab.page.get_by_label("Field").select_option("dm")
    await tab.page.get_by_label("Value of dm").select_option("DM")
    await tab.wait_for_rows(3)
    async with tab.page.expect_download() as saved:
        await tab.page.get_by_role("button", name="Save as JSON Lines").click()
    await (await saved.value).save_as(tmp_path / "some.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert [line["value"] for line in lines] == [{"dm": "DM"}] * 3
    assert {line["client_id"] for line in lines} == {LONG_ID}

    await tab.page.get_by_label("Client's id").fill("other")
    await tab.wait_for_text("main", "No result is like that")
    await tab.page.get_by_role("link", name="Take the filters away").click()
    await tab.wait_for_rows(6)
    await tab.page.get_by_label("Before").fill("2001-01-01T00:00")
    await tab.wait_for_text("main", "No result is like that")
    await tab.open("services/dm_check?tab=results&client=@")
    await tab.wait_for_text("main", "No client has such an id")


@pytest.mark.long
async def test_items_and_clients_of_a_service(node: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(node, "services/dm_check?tab=items")
    await tab.wait_for_text("tbody tr", "account1")
    await tab.check_fit()
    await tab.page.get_by_label("State").select_option("claimed")
    await tab.wait_for_rows(3)
    await tab.page.get_by_label("State").select_option("")
    await tab.page.get_by_label("Key begins with").fill("kkk")
    await tab.wait_for_rows(1)
    await tab.page.locator("tbody th a").click()
    await tab.wait_for_text("main h1", LONG_KEY)

    await tab.open("services/dm_check?tab=clients")
    await tab.wait_for_text("tbody tr", LONG_ID)
    await tab.check_fit()
    await tab.page.locator("tbody tr", has_text=LONG_ID).get_by_role("link", name="3", exact=True).click()
    await tab.wait_for_rows(3)
    assert f"client={LONG_ID}" in tab.page.url


@pytest.mark.long
async def test_an_operator_changes_settings_and_sees_the_difference_first(node: Server, open_tab: OpenTab) -> None:
    admin = await node.admin()
    tab = await open_tab(node, "services/dm_check?tab=settings")
    await tab.wait_for_text("tbody tr", "bucket_size")
    await tab.check_fit()
    assert await tab.page.get_by_label("bucket_size").count() == 0  # an onlooker sees a table
    await as_role(tab, node, "operator")
    await tab.check_fit()

    await tab.page.get_by_label("max_parts").fill("7.5")
    await tab.wait_for_text(".refusal", "max_parts: expected a whole number")
    await tab.page.get_by_role("button", name="Discard").click()
    await tab.page.get_by_label("bucket_size").fill("")
    await tab.page.get_by_label("items_per_minute").fill("600")
    await tab.page.get_by_label("agents", exact=True).fill('{"worker": "1.2"}')
    await tab.page.get_by_label("agents_only").select_option("true")
    await tab.wait_for_text(".settings", "4 settings changed")
    await tab.check_fit()
    await tab.page.get_by_role("button", name="Save settings").click()
    await tab.wait_for_text("dialog tr", "bucket_size")
    assert (await tab.text("dialog tr:has-text('bucket_size')")).split() == ["bucket_size", "3", "180", "(default)"]
    assert await tab.violations() == []
    assert (await admin.ok("service.show", service="dm_check"))["settings"]["bucket_size"] == 3
    await tab.page.locator("dialog").get_by_role("button", name="Save settings").click()
    await tab.wait_for_text(".settings", "Nothing is changed")
    settings = (await admin.ok("service.show", service="dm_check"))["settings"]
    assert (settings["bucket_size"], settings["items_per_minute"], settings["agents_only"]) == (180, 600, True)
    assert settings["agents"] == {"worker": "1.2"}

    await tab.page.get_by_label("max_parts").fill("0")
    await tab.page.get_by_role("button", name="Save settings").click()
    await tab.page.locator("dialog").get_by_role("button", name="Save settings").click()
    await tab.wait_for_text("dialog [role=alert]", "max_parts")


async def test_now_shows_the_kinds_of_results_and_the_age_of_what_waits(
    node: Server, open_tab: OpenTab, database: Database
) -> None:
    other = await node.volunteer("other")
    await other.submit(await other.bucket(), "NON_DM")
    await execute(database, "UPDATE bucket SET since = now() - interval '2 hours' WHERE state = 'ready'")
    tab = await open_tab(node, "services/dm_check")
    await tab.wait_for_text(".legend", "NON_DM 50.0 %")
    await tab.wait_for_text(".ages div", "1 h to 6 h")
    await tab.wait_for_text(".chart-at", "items/s")
    for span in ("1 hour", "24 hours", "30 days"):
        await tab.page.get_by_role("link", name=span, exact=True).click()
        await tab.wait_for_text(".legend", "NON_DM 50.0 %")
    await tab.page.get_by_text("Figures as a table").last.click()
    await tab.wait_for_text(".figures tbody tr", "3")
    await tab.check_fit()

    for address in ("results", "results?span=day"):
        await tab.open(address)
        await tab.wait_for_text(".progress-list li", "dm_check")
        await tab.wait_for_text(".legend li", "NON_DM 50.0 %")
    await tab.check_fit()
