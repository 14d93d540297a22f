"""The pages for volunteers and onlookers: the public page, a volunteer's own, and the boards."""

from __future__ import annotations

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.conftest import OpenTab
from tests.harness import Server
from tests.serve.test_stats_tables import recorded, settle
from tests.serve.tools import configure, execute

LONG_ID = "a-volunteer-with-a-rather-long-name-that-ends-only-after-64-0001"

_PAST = """
INSERT INTO client_period (period, begins, client_id, service_id, settled)
SELECT period, date_trunc(period, now())::date, client_id, service_id, 1000
  FROM membership, unnest(ARRAY['week', 'month']) AS p (period) WHERE client_id = 'ada' AND settled > 0"""

_SLOWED = """
UPDATE membership SET health = 'flagged', health_reason = 'its results differ from all others'
 WHERE client_id = $1 AND settled > 0"""


@pytest.fixture
async def worked(start_server: StartServer, database: Database) -> Server:
    """A node on which ada has settled more than a client with a long id, which is flagged."""
    await configure(database, bucket_size=3)
    server = await start_server(project="Who answers letters?")
    await (await server.admin()).add(21, services=["dm_check"])
    await settle(server, "ada", 2)
    await settle(server, LONG_ID, 1)
    await recorded(server)
    await execute(database, _PAST)
    await execute(database, _SLOWED, LONG_ID)
    return server


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_public_page_tells_the_goal_the_pace_and_who_contributed(
    worked: Server, open_tab: OpenTab, scheme: str
) -> None:
    tab = await open_tab(worked, "project", scheme=scheme)
    await tab.wait_for_text("main h1", "Who answers letters?")
    await tab.wait_for_text(".goal", "42.8 %")
    await tab.wait_for_text(".goal", "9 of 21 items")
    contributors = tab.page.get_by_role("region", name="Just contributed")
    assert await contributors.get_by_role("listitem").count() == 1, "who is flagged is left out"
    await tab.wait_for_text(".contributors", "ada")
    await tab.wait_for_text(".leaders", "6")
    await tab.page.get_by_text("A badge, and the figures as JSON").click()
    await tab.wait_for_text(".command code", f'src="{tab.url}/v1/progress.svg"')
    await tab.check_fit()
    await tab.page.get_by_role("navigation", name="Pages").get_by_role("link", name="Take part").click()
    await tab.wait_for_text("main h1", "Take part")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_volunteers_page_tells_its_places_and_what_holds_it_back(
    worked: Server, open_tab: OpenTab, scheme: str
) -> None:
    tab = await open_tab(worked, f"volunteers/{LONG_ID}", scheme=scheme)
    await tab.wait_for_text("main h1", LONG_ID)
    await tab.wait_for_text(".figure:nth-child(1)", "place 2 of 2, 33.3 % of all")
    await tab.wait_for_text("main", "dm_check: one bucket at a time, since its results differ from all others")
    await tab.wait_for_text(".chart-at", "items/h")
    await tab.check_fit()

    await tab.evaluate("navigator.share = undefined")
    await tab.open("volunteers/ada")
    await tab.wait_for_text(".figure:nth-child(2)", "1,006")
    await tab.wait_for_text("main", "Nothing holds it back.")
    await tab.open("volunteers/nobody")
    await tab.wait_for_text("main", "There is no such volunteer.")


async def test_boards_of_a_week_a_month_and_all_time_are_linked(worked: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(worked, "leaderboard")
    for link, told in (("This week", "1,006"), ("This month", "1,006"), ("All time", "6"), ("Today", "6")):
        await tab.page.get_by_role("link", name=link, exact=True).click()
        await tab.wait_for_text("tbody tr:first-child td", told)
        await tab.wait_for_text("tbody tr:nth-child(2)", "flagged")
    await tab.check_fit()
