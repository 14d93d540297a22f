"""Trouble as the overview, the events and the nodes show it, with ids of 64 characters."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.conftest import OpenTab
from tests.harness import Server
from tests.serve.tools import configure, execute, report

LONG_ID = "a" * 58 + "-00001"

_FLAGGED = "UPDATE membership SET health = 'flagged', health_reason = 'it makes things up' WHERE client_id = $1"

_GONE_NODE = """
INSERT INTO node (name, version, started_at, lease_until)
VALUES ($1, '0.1.0', now() - interval '5 hours', now() - interval '1 minute')"""


_SLOW_DATABASE = """
CREATE FUNCTION wait_a_little() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.3); RETURN new; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON node FOR EACH ROW EXECUTE FUNCTION wait_a_little();"""


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node with a slow database, beside which another node was killed.

    One client is flagged, one limited by its API, and one gives back.
    """
    await configure(database, bucket_size=3, newcomer_buckets=9, max_held_buckets=9)
    await execute(database, _GONE_NODE, LONG_ID)
    await execute(database, _SLOW_DATABASE)
    server = await start_server(node_name="here", node_lease=6)
    await (await server.admin()).add(30, services=["dm_check"])

    liar = await server.volunteer(LONG_ID)
    await liar.submit(await liar.bucket())
    limited = await server.volunteer("limited")
    await report(limited, kind="upstream_limited", retry_after=900)
    await execute(database, _FLAGGED, LONG_ID)
    server.node.events.emit("fault", "the topic buckets cannot be computed: ZeroDivisionError")
    for number in (3, 2):
        server.node.events.emit("release", f"given back with {number} items left", client="limited", service="dm_check")
    await server.node.parts.statistics.recorder.write()
    return server


async def test_the_overview_tells_what_is_wrong_and_why_nothing_comes(node: Server, open_tab: OpenTab) -> None:
    waiter = await node.volunteer("waiter")
    await waiter.ok("join", service="follower_check")
    await waiter.ok("ask", service="follower_check", count=2)
    tab = await open_tab(node)
    await tab.wait_for_text(".concerns", "1 node gone in the last hour")
    await tab.wait_for_text(".concerns", "the database is slow: 3")
    await tab.wait_for_text(".balance", "nothing is ready: others have what is left, or all is done")
    await tab.wait_for_text(".leaders li", "flagged")
    await tab.wait_for_text(".events li", "its API takes no more")
    assert await tab.page.locator(".events .badge", has_text="release").count() == 0
    await tab.wait_for_text(".chart .legend", "dm_check")
    await tab.wait_for_text(".chart .legend", "3 events")
    await tab.check_fit()

    await tab.open("?span=day")
    await tab.wait_for_text(".chart-at", "items/s")
    await tab.wait_until_loaded()
    assert await tab.violations() == []


async def test_events_are_chosen_by_severity_kinds_and_time_and_repeats_are_one_line(
    node: Server, open_tab: OpenTab
) -> None:
    tab = await open_tab(node, "events", scheme="dark")
    await tab.wait_for_text(".events li", "2 times since")
    await tab.page.get_by_text("2 times since").click()
    await tab.wait_for_text(".repeats li", "given back with 3 items left")
    await tab.check_fit()

    await tab.page.get_by_label("Severity").select_option("error")
    await tab.wait_until_true("document.querySelectorAll('.events > li').length === 1")
    await tab.wait_for_text(".events li", "cannot be computed: ZeroDivisionError")
    await tab.wait_for_text(".events li .event-where", "here")

    await tab.open("events")
    for kind in ("limited", "node"):
        await tab.page.get_by_label(kind, exact=True).check()
    await tab.wait_until_true("document.querySelector('.events').innerText.match(/limited/)")
    await tab.wait_until_true("!document.querySelector('.events').innerText.match(/fault|connect/)")
    await tab.wait_for_text(".events li", "is gone: its lease ran out")
    await tab.page.reload()  # the address keeps the kinds
    assert await tab.page.get_by_label("limited", exact=True).is_checked()
    await tab.page.get_by_label("Until").fill("2026-01-01T00:00")
    await tab.page.get_by_label("Until").press("Tab")
    await tab.wait_for_text("main", "No event is like that")
    await tab.page.get_by_role("link", name="Take the filters away").click()
    await tab.page.get_by_role("link", name="last hour").click()
    await tab.page.locator(".events li .event-where").get_by_role("link", name="limited").first.click()
    await tab.wait_for_text("main h1", "limited")


async def test_nodes_show_those_that_are_gone_and_fold_the_statements(node: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(node, "nodes")
    gone = tab.page.get_by_role("region", name="Nodes that are gone")
    await gone.get_by_text("its lease ran out, so it was killed").wait_for()
    await gone.get_by_text("5 h").wait_for()
    statements = tab.page.get_by_role("region", name="What the statements").locator("tbody tr")
    await statements.first.wait_for()
    assert await statements.count() == 10
    await tab.check_fit()
    await tab.page.get_by_role("button", name="statements").click()
    await tab.page.get_by_role("button", name="The dearest 10").wait_for()
    assert await statements.count() > 10
