"""/metrics: its values are true and described, and it has all that the files in deploy/ use."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from coordinator.serve.costs import ASK_IN_VAIN, PRICES
from coordinator.stats import metrics
from coordinator.store.pool import Connection, Database
from coordinator.wire.client import Recollect
from tests.conftest import StartServer
from tests.harness import Server, Volunteer
from tests.serve.tools import configure, eventually

DEPLOY = Path(__file__).parents[2] / "deploy"

LABELS = {
    *("service", "state", "kind", "health", "statement", "channel", "le", "version", "node"),
    *("reason", "request", "budget", "holder"),
}
"""Labels with few values; ids of clients, buckets and sessions, keys and addresses must not be labels."""

FROM_PROMETHEUS = {"up", "job", "instance"}


class Page:
    """The answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples: list[Sample] = [sample for family in self.families for sample in family.samples]

    def get(self, name: str, **labels: str) -> float:
        (found,) = [one.value for one in self.samples if one.name == name and one.labels == labels]
        return float(found)


async def scrape(server: Server) -> Page:
    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.node.ops_port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            return str(answer.read().decode())

    return Page(await asyncio.to_thread(get))


async def played(start_server: StartServer, database: Database) -> Server:
    """Start a node on which every event that a metric counts has happened."""
    await configure(database, bucket_size=4, dead_after=1, release_after=1, items_per_minute=100_000)
    server = await start_server()
    admin, good, bad = await server.admin(), await server.volunteer("good-client"), await server.volunteer("bad-client")
    await admin.add(40)
    for _ in range(3):
        assert (await good.submit(await good.bucket()))["closed"]
    back = await good.bucket()
    await good.ok("release", bucket_id=back["bucket_id"], claim=back["claim"])
    bucket = await bad.bucket()
    for _ in range(5):
        assert (await bad.submit(bucket, dm="PERHAPS"))["code"] == "bad_result"
    await bad.push("bucket_dead")
    await bad.push("bucket_lost")
    cut = await server.volunteer("cut-client")
    await cut.bucket()
    cut.cut()
    return server


async def test_the_numbers_are_those_of_the_database(start_server: StartServer, database: Database) -> None:
    server = await played(start_server, database)
    service = "dm_check"

    async def counted() -> bool:
        page = await scrape(server)
        found = [
            one.value
            for one in page.samples
            if one.name == "coordinator_disconnects_total" and one.labels == {"service": service}
        ]
        return found == [1] and page.get("coordinator_clients_unwell", service=service, health="flagged") == 1

    await eventually(counted, "the disconnect is not counted")
    page = await scrape(server)
    sums: dict[str, int] = {}
    async with database.connection() as db:
        columns = "assigned", "processed", "settled", "given_back", "dead", "disconnects", "bad_submits"
        query = f"SELECT {', '.join(f'sum({one})::int AS {one}' for one in columns)} FROM membership"
        sums = dict(await db.fetchrow(query))
    assert sums == {
        "assigned": page.get("coordinator_buckets_claimed_total", service=service),
        "processed": page.get("coordinator_submits_stored_total", service=service),
        "settled": page.get("coordinator_items_settled_total", service=service),
        "given_back": page.get("coordinator_buckets_given_back_total", service=service),
        "dead": page.get("coordinator_buckets_died_total", service=service),
        "disconnects": page.get("coordinator_disconnects_total", service=service),
        "bad_submits": page.get("coordinator_submits_refused_total", service=service),
    }
    assert (sums["settled"], sums["given_back"], sums["dead"], sums["bad_submits"]) == (12, 1, 1, 5)
    assert page.get("coordinator_items", service=service, state="settled") == 12
    states = ("waiting", "ready", "claimed", "dead", "settled", "quarantined")
    assert sum(page.get("coordinator_items", service=service, state=one) for one in states) == 40
    assert page.get("coordinator_clients", state="registered") == 3
    assert page.get("coordinator_sessions", channel="client") == 2
    assert page.get("coordinator_sessions", channel="admin") == 1
    assert page.get("coordinator_store_seconds_count", service=service) == 3
    assert page.get("coordinator_bucket_wait_seconds_count", service=service) == sums["assigned"]
    assert page.get("coordinator_bucket_wait_seconds_bucket", service=service, le="+Inf") == sums["assigned"]
    assert 0 < page.get("coordinator_store_seconds_sum", service=service) < 30
    assert page.get("coordinator_events_total", kind="dead") == 1
    assert page.get("coordinator_statement_calls_total", statement="claims.claim") >= 5
    assert page.get("coordinator_statement_rows_total", statement="copy.result") == 12
    assert page.get("coordinator_database_up") == 1
    admin = await server.admin()
    await admin.ok("client.deactivate", client_id="bad-client")
    assert (await scrape(server)).get("coordinator_clients_unwell", service=service, health="flagged") == 0


async def test_what_stands_there_is_named_and_bounded(start_server: StartServer, database: Database) -> None:
    server = await played(start_server, database)
    page = await scrape(server)
    for family in page.families:
        assert re.fullmatch(r"(coordinator|process)_[a-z_]+", family.name), family.name
        assert family.documentation, family.name
        for sample in family.samples:
            assert sample.labels.keys() <= LABELS, sample
    for who in ("good-client", "bad-client", "cut-client", "account"):
        assert who not in page.text
    before = len(page.samples)
    for number in range(5):
        peer = await server.volunteer(f"more{number}")
        assert (await peer.submit(await peer.bucket()))["closed"]
    new = {(one.name, *one.labels.values()) for one in (await scrape(server)).samples} - {
        (one.name, *one.labels.values()) for one in page.samples
    }
    assert all(name.startswith("coordinator_statement_") for name, *_ in new), new
    assert before > 100


async def test_it_is_only_on_the_operations_listener(server: Server, volunteer: Volunteer) -> None:
    def get(port: int | None, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code

    assert await asyncio.to_thread(get, server.node.port, "/metrics") == 404
    assert await asyncio.to_thread(get, server.node.ops_port, "/metrics?x=1") == 200


async def test_a_database_that_does_not_answer_does_not_keep_the_node_from_it(
    start_server: StartServer, database: Database
) -> None:
    server = await played(start_server, database)
    async with database.connection() as db:
        await db.execute("BEGIN")
        await db.execute("LOCK TABLE service_count IN ACCESS EXCLUSIVE MODE")
        page = await scrape(server)
        await db.execute("ROLLBACK")
    assert page.get("coordinator_database_up") == 0
    assert page.get("coordinator_items_settled_total", service="dm_check") == 12
    assert "coordinator_items{" not in page.text
    assert (await scrape(server)).get("coordinator_database_up") == 1


# What deploy/ uses


def expressions() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"grafana.json: {panel['title']}", target["expr"]
    yield "grafana.json: service", dashboard["templating"]["list"][1]["query"]
    text = (DEPLOY / "alerts.yml").read_text()
    for alert, expression in re.findall(r"- alert: (\w+)\n\s+expr: ((?:\|\n(?:\s{10,}.*\n)+)|.*\n)", text):
        yield f"alerts.yml: {alert}", expression.removeprefix("|").strip()


WORDS = {
    *("sum", "max", "min", "by", "on", "and", "rate", "increase", "topk", "histogram_quantile", "label_values"),
    *("service", "state", "kind", "health", "statement", "channel", "le", "job", "instance"),
    *("reason", "request", "budget", "holder"),
}


def names_in(expression: str) -> set[str]:
    """Return the names of metrics in PromQL: all names but words of the language, labels and texts."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    return set(re.findall(r"(?<![\w$])[a-z_]+(?![\w])", bare)) - WORDS


def labels_in(expression: str) -> Iterator[tuple[str, str, str]]:
    """Yield each metric with a label that the expression selects, and the value."""
    for name, inside in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        for label, asked in re.findall(r'([a-z_]+)\s*[=!]~?\s*"([^"]*)"', inside):
            yield name, label, asked


def balanced(expression: str) -> bool:
    bare = re.sub(r'"[^"]*"', "", expression)
    return all(bare.count(a) == bare.count(b) for a, b in ("()", "{}", "[]")) and expression.count('"') % 2 == 0


def test_there_are_expressions_in_both() -> None:
    found = [where for where, _ in expressions()]
    alerts = len(re.findall("- alert:", (DEPLOY / "alerts.yml").read_text()))
    assert sum(where.startswith("alerts") for where in found) == alerts > 8
    assert sum(where.startswith("grafana") for where in found) > 12


def test_every_alert_says_what_to_do() -> None:
    for alert in (DEPLOY / "alerts.yml").read_text().split("- alert: ")[1:]:
        assert re.search(r'description: ".{40,}"', alert), alert.partition("\n")[0]


async def test_an_open_transaction_and_the_lease_are_told(server: Server, database: Database) -> None:
    async with database.transaction() as db:
        await db.execute("SELECT 1")
        await asyncio.sleep(0.2)
        page = await scrape(server)
    assert (page.get("coordinator_oldest_transaction_seconds") or 0) >= 0.2
    assert 5 < (page.get("coordinator_lease_seconds") or 0) <= 15
    assert (page.get("coordinator_database_bytes") or 0) > 1_000_000
    assert (page.get("coordinator_data_free_bytes") or 0) > 1_000_000


async def test_what_waits_and_what_costs_is_told(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=4, max_claimed_buckets=2, items_per_minute=1000, newcomer_buckets=20)
    server = await start_server()
    server.node.parts.sockets.listener._edge.costs._clients._per_minute = 600
    admin, ada, bob = await server.admin(), await server.volunteer("ada"), await server.volunteer("bob")
    await admin.add(12, services=["dm_check"])
    for _ in range(2):
        await ada.bucket()
    await bob.ok("ask", service="dm_check", count=1)

    for _ in range(200):
        answer = await ada.ask_for("recollect")
        if answer["type"] == "error":
            break
    assert answer["code"] == "rate_limited"

    async def told() -> bool:
        page = await scrape(server)
        return page.get("coordinator_sessions_waiting", service="dm_check", reason="budget") == 1

    await eventually(told, "nobody waits")
    page = await scrape(server)
    assert page.get("coordinator_sessions_waiting", service="dm_check", reason="no_items") == 0
    assert page.get("coordinator_budget", service="dm_check", budget="max_claimed_buckets") == 2
    assert page.get("coordinator_budget_spent", service="dm_check", budget="max_claimed_buckets") == 2
    assert page.get("coordinator_budget_spent", service="dm_check", budget="items_per_minute") == 8
    charged = page.get("coordinator_cost_charged_total", request="recollect")
    assert charged > 0
    assert charged % PRICES[Recollect] == 0
    assert page.get("coordinator_cost_charged_total", request="ask") >= ASK_IN_VAIN
    assert page.get("coordinator_cost_refused_total", request="recollect") > 0


async def test_a_held_snapshot_is_told(server: Server, database: Database) -> None:
    async with database.connection() as db, database.connection() as other:
        await db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await db.execute("SELECT FROM item")
        before = (await scrape(server)).get("coordinator_cleaning_held_back_transactions", holder="session")
        for _ in range(5):
            await other.execute("SELECT pg_current_xact_id()")
        page = await scrape(server)
        await db.execute("ROLLBACK")
    assert page.get("coordinator_cleaning_held_back_transactions", holder="session") >= before + 5
    assert page.get("coordinator_cleaning_held_back_transactions", holder="prepared") == 0


async def test_a_statement_that_is_refused_leaves_out_its_figures_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_: Connection) -> NoReturn:
        raise asyncpg.FeatureNotSupportedError("not on this extension")

    monkeypatch.setattr(metrics, "count_clients", refused)
    page = await scrape(server)
    assert page.get("coordinator_database_up") == 1
    assert "coordinator_clients{" not in page.text
    assert page.get("coordinator_database_bytes") > 0


async def test_whatever_deploy_uses_is_there(start_server: StartServer, database: Database) -> None:
    server = await played(start_server, database)
    await eventually(lambda: _has(server, "coordinator_disconnects_total"), "nothing is counted")
    page = await scrape(server)
    there: dict[str, list[dict[str, Any]]] = {}
    for sample in page.samples:
        there.setdefault(sample.name, []).append(sample.labels)
    for where, expression in expressions():
        assert balanced(expression), where
        names = names_in(expression)
        assert names, where
        assert names - FROM_PROMETHEUS <= there.keys(), where
        for name, label, asked in labels_in(expression):
            if label in FROM_PROMETHEUS or asked.startswith("$"):
                continue
            values = {one[label] for one in there[name]}
            assert set(asked.split("|")) <= values, (where, name, label)


async def _has(server: Server, name: str) -> bool:
    return any(one.name == name for one in (await scrape(server)).samples)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le) (rate(a_bucket{service=~"$service"}[5m]))', {"a_bucket"}),
        ('up{job="coordinator"} == 0 and on () max(b_total) > 0', {"up", "b_total"}),
    ],
)
def test_names_are_found_in_promql(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names
