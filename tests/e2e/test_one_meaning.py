"""Each number means the same wherever it stands: the browser, /metrics, the commands and the database agree."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.browser import Tab
from tests.e2e.conftest import OpenTab
from tests.harness import PATIENCE, PLACES, Server, Volunteer
from tests.serve.test_metrics import scrape
from tests.serve.tools import configure, eventually, value

T = TypeVar("T")

ITEMS = "settled", "claimed", "ready", "waiting", "dead", "quarantined"
"""Where an item can be, in the dashboard's order."""

BUCKETS = "ready", "claimed", "dead"

Figures = Mapping[str, Mapping[str, int]]
"""Of each service its items by place with their `total`, and its `…_buckets`."""

# What has a result and is nowhere else is settled; of two copies the one that can be had counts.
COUNT = f"""
SELECT s.name, coalesce(place, 'nowhere') AS place, count(*)
  FROM enrolled_item x JOIN service s USING (service_id)
  LEFT JOIN (SELECT DISTINCT ON (service_id, item_id) *
               FROM ({PLACES} UNION ALL SELECT service_id, item_id, 'settled' FROM result) p
              ORDER BY service_id, item_id, place = 'settled', place <> 'ready') p USING (service_id, item_id)
 GROUP BY 1, 2
UNION ALL SELECT s.name, b.state || '_buckets', count(*)
  FROM bucket b JOIN service s USING (service_id) WHERE b.state <> 'done' GROUP BY 1, 2
UNION ALL SELECT s.name, 'total', count(*) FROM enrolled_item JOIN service s USING (service_id) GROUP BY 1"""


async def by_sql(database: Database) -> Figures:
    async with database.connection() as db:
        services = [row["name"] for row in await db.fetch("SELECT name FROM service")]
        names = (*ITEMS, "total", *(f"{state}_buckets" for state in BUCKETS))
        found = {service: dict.fromkeys(names, 0) for service in services}
        for service, place, count in await db.fetch(COUNT):
            found[service][place] = count
    return found


async def by_metrics(server: Server) -> Figures:
    page = await scrape(server)
    services = {one.labels["service"] for one in page.samples if one.name == "coordinator_items"}
    found = {
        service: {place: int(page.get("coordinator_items", service=service, state=place)) for place in ITEMS}
        for service in services
    }
    for service, one in found.items():
        one["total"] = sum(one.values())
        for state in BUCKETS:
            one[f"{state}_buckets"] = int(page.get("coordinator_buckets_open", service=service, state=state))
    return found


def flat(row: Mapping[str, Any]) -> dict[str, int]:
    """The items and buckets of a service, or of all, as the stats channel tells them."""
    return {**row["items"], **{f"{state}_buckets": count for state, count in row["buckets"].items()}}


async def by_top(server: Server) -> tuple[Figures, Mapping[str, int]]:
    """Of each service, and of all together."""
    told = {one["topic"]: one["data"] for one in await server.command("top", "--once")}
    return {row["service"]: flat(row) for row in told["services"]["rows"]}, flat(told["overview"])


async def by_stats(server: Server) -> Figures:
    (told,) = await server.command("stats")
    names = {"items": "total"} | {name: name for name in (*ITEMS, *(f"{state}_buckets" for state in BUCKETS))}
    return {row["service"]: {names[name]: row[name] for name in names} for row in told["services"]}


def together(figures: Figures) -> Mapping[str, int]:
    """All services added up."""
    return {name: sum(one[name] for one in figures.values()) for name in next(iter(figures.values()))}


# What the pages say of such figures


def bar(service: str, one: Mapping[str, int]) -> str:
    words = [f"{one[place]} {place}" for place in ITEMS if one[place]]
    return f"{service}: {', '.join(words) or 'no items'}"


def legend(figures: Figures) -> list[str]:
    return [f"{place} {together(figures)[place]}" for place in ITEMS]


def overview(figures: Figures) -> dict[str, Any]:
    every = together(figures)
    return {
        "bars": {bar(service, one) for service, one in figures.items()},
        "legend": legend(figures),
        "settled": f"{every['settled']} of {every['total']} items",
        "ready": f"{every['ready_buckets']} buckets",
        "waiting": [f"{every['waiting']} items not in a bucket yet"],
    }


def services(figures: Figures) -> dict[str, Any]:
    return {
        "bars": {bar(service, one) for service, one in figures.items()},
        "legend": legend(figures),
        "rows": {
            service: [
                f"of {one['total']}",
                *(str(one[name]) for name in ("waiting", *(f"{s}_buckets" for s in BUCKETS))),
            ]
            for service, one in figures.items()
        },
    }


async def common(tab: Tab) -> dict[str, Any]:
    labels = await tab.page.locator(".items-bar").evaluate_all("bars => bars.map(bar => bar.ariaLabel)")
    lines = await tab.page.locator(".card:has(.items-bar) .legend li").all_inner_texts()
    return {"bars": set(labels), "legend": [" ".join(line.split()) for line in lines]}


async def overview_page(tab: Tab) -> dict[str, Any]:
    balance = tab.page.locator(".card", has=tab.page.locator(".balance"))
    return {
        **await common(tab),
        "settled": await tab.text(".figures-row .figure:nth-child(2) .note"),
        "ready": await balance.locator("div", has_text="Ready to hand out").locator("dd").inner_text(),
        "waiting": re.findall(r"[\d,]+ items? not in a bucket yet", await balance.locator("p").inner_text()),
    }


async def services_page(tab: Tab) -> dict[str, Any]:
    # In one tab, since the page may change between two; at first it is still the one before.
    rows = await tab.page.locator("table tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(c => c.innerText))"
    )
    told = {}
    for row in rows[1:]:
        cells = dict(zip(rows[0], row, strict=True))
        if "Progress" not in cells:
            break
        progress = cells["Progress"][cells["Progress"].index("of ") :]
        told[cells["Service"].split()[0]] = [
            progress,
            *(cells[name] for name in ("Waiting", "Ready", "Claimed", "Dead")),
        ]
    return {**await common(tab), "rows": told}


async def in_time(read: Callable[[], Awaitable[T]], expected: T) -> T:
    """Read a view until it is as expected, or has had time enough: views lag by a second or two."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while True:
        shown = await read()
        if shown == expected or asyncio.get_running_loop().time() > end:
            return shown
        await asyncio.sleep(0.1)


async def member(server: Server, name: str) -> Volunteer:
    """A volunteer of both services."""
    peer = await server.volunteer(name)
    await peer.ok("join", service="second", profile={"source": name})
    return peer


async def run(server: Server, database: Database) -> None:
    """Items of two services come to wait, lie ready, are held, given back, lost, dead, prioritised and settled."""
    admin = await server.admin()
    settings = {"bucket_size": 4, "max_buckets_per_ask": 1}
    await admin.ok("service.add", service="second", plugin="dm_check", settings=settings)
    await admin.add(120, services=["dm_check"])
    await admin.add(60, prefix="other", services=["second"])
    holder = await server.volunteer("holder")
    await holder.bucket()
    await holder.push("bucket_dead")
    await admin.ok("service.configure", service="dm_check", settings={"dead_after": None})
    worker, keeper = await member(server, "worker"), await member(server, "keeper")
    for service, buckets in (("dm_check", 3), ("second", 2)):
        for _ in range(buckets):
            assert (await worker.submit(await worker.bucket(service)))["closed"]
    held = await keeper.bucket()
    await keeper.submit(held, items=[one["item"] for one in held["items"][:2]], final=False)
    await keeper.bucket("second")
    giver = await server.volunteer("giver")
    given = await giver.bucket()
    await giver.ok("release", bucket_id=given["bucket_id"], claim=given["claim"])
    gone = await server.volunteer("gone")
    await gone.bucket()
    gone.cut()
    await admin.ok("item.prioritize", service="dm_check", keys=[held["items"][4]["key"]])

    async def at_rest() -> bool:
        """Buckets of the lost one are free, and so many lie ready that no more are made."""
        lost = await value(database, "SELECT count(*) FROM bucket WHERE client_id = 'gone'")
        figures = await by_sql(database)
        ready = [figures[service]["ready_buckets"] for service in ("dm_check", "second")]
        return not lost and ready[0] >= 2 * 5 and ready[1] >= 2 * 2

    await eventually(at_rest, "the ready pools are not filled")


@pytest.mark.long
async def test_each_number_means_the_same_wherever_it_stands(
    start_server: StartServer, database: Database, open_tab: OpenTab
) -> None:
    await configure(database, bucket_size=5, max_buckets_per_ask=1, dead_after=1)
    server = await start_server()
    await run(server, database)
    figures = await by_sql(database)
    for service, settled, claimed, dead, total in (("dm_check", 17, 2, 5, 120), ("second", 8, 4, 0, 60)):
        one = figures[service]
        assert (one["settled"], one["claimed"], one["dead"], one["total"]) == (settled, claimed, dead, total)
        assert one["waiting"] > 0
        assert one["ready"] + one["waiting"] == total - settled - claimed - dead

    assert await by_metrics(server) == figures
    assert await by_stats(server) == figures
    told = figures, together(figures)
    assert await in_time(lambda: by_top(server), told) == told

    tab = await open_tab(server)
    await tab.wait_until_live()
    said = overview(figures)
    assert await in_time(lambda: overview_page(tab), said) == said
    await tab.open("services")
    said = services(figures)
    assert await in_time(lambda: services_page(tab), said) == said

    assert await by_sql(database) == figures, "something has moved meanwhile"
