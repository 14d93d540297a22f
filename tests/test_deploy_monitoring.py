"""The files of `deploy/` for Prometheus: its programs take them, every alert comes in its time, and a node is read."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from asyncio.subprocess import DEVNULL
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.e2e.test_readme import a_free_port
from tests.harness import Server
from tests.needed import program
from tests.serve.tools import eventually

DEPLOY = Path(__file__).parent.parent / "deploy"

BAD = {
    "CoordinatorGone": ['up{job="coordinator"} 0x200'],
    "CoordinatorWithoutDatabase": ["coordinator_database_up 0x200"],
    "CoordinatorWorkStands": [
        'coordinator_items{service="s", state="waiting"} 5x200',
        'coordinator_items_settled_total{service="s"} 7x200',
        'coordinator_sessions{channel="client"} 3x200',
    ],
    "CoordinatorNobodyWorks": [
        'coordinator_items{service="s", state="ready"} 5x200',
        'coordinator_sessions{channel="client"} 0x200',
    ],
    "CoordinatorClientsFlagged": ['coordinator_clients_unwell{service="s", health="flagged"} 1x200'],
    "CoordinatorClientsOutdated": ['coordinator_sessions_waiting{service="s", reason="outdated"} 2x200'],
    "CoordinatorBudgetSpent": [
        'coordinator_budget{service="s", budget="items_per_minute"} 60x200',
        'coordinator_budget_spent{service="s", budget="items_per_minute"} 61x200',
        'coordinator_sessions_waiting{service="s", reason="budget"} 2x200',
    ],
    "CoordinatorCostRefused": ['coordinator_cost_refused_total{request="join"} 0+120x200'],
    "CoordinatorBucketsDie": ['coordinator_buckets_died_total{service="s"} 0+1x200'],
    "CoordinatorItemsQuarantined": ['coordinator_items{service="s", state="quarantined"} 2x200'],
    "CoordinatorBucketsSlow": [
        'coordinator_store_seconds_bucket{le="1"} 0x200',
        'coordinator_store_seconds_bucket{le="5"} 0+10x200',
        'coordinator_store_seconds_bucket{le="+Inf"} 0+10x200',
    ],
    "CoordinatorConnectionsShort": ["coordinator_pool_wait_seconds_total 0+120x200"],
    "CoordinatorLate": ["coordinator_event_loop_lag_seconds 2x200"],
    "CoordinatorFaults": ['coordinator_events_total{kind="fault"} 0+1x200'],
    "CoordinatorLeaseShort": ["coordinator_lease_seconds 3x200"],
    "CoordinatorTransactionOpen": ["coordinator_oldest_transaction_seconds 1000x200"],
    "CoordinatorCleaningHeldBack": ['coordinator_cleaning_held_back_transactions{holder="slot"} 2000000x200'],
    "CoordinatorDeadRows": ["coordinator_dead_rows 6000000x200"],
    "CoordinatorDiskFills": ["coordinator_data_free_bytes 1000000000x200"],
}
"""For each alert, series of values a minute after which it comes."""

GOOD = [
    'up{job="coordinator"} 1x200',
    "coordinator_database_up 1x200",
    'coordinator_items{service="s", state="waiting"} 5000-10x200',
    'coordinator_items_settled_total{service="s"} 0+10x200',
    'coordinator_sessions{channel="client"} 3x200',
    'coordinator_budget{service="s", budget="items_per_minute"} 60x200',
    'coordinator_budget_spent{service="s", budget="items_per_minute"} 10x200',
    'coordinator_sessions_waiting{service="s", reason="no_items"} 2x200',
    'coordinator_cost_refused_total{request="join"} 0+1x200',
    'coordinator_store_seconds_bucket{le="1"} 0+10x200',
    'coordinator_store_seconds_bucket{le="+Inf"} 0+10x200',
    "coordinator_lease_seconds 12x200",
    "coordinator_oldest_transaction_seconds 2x200",
    'coordinator_cleaning_held_back_transactions{holder="session"} 500x200',
    "coordinator_data_free_bytes 90000000000x200",
]
"""Series of a service at work, of which none is due."""


def promtool(*words: str | Path) -> str:
    done = subprocess.run(
        [program("promtool", "prometheus"), *words], cwd=DEPLOY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def of(series: list[str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, _, values in (line.rpartition(" ") for line in series)]


def firing(alert: str, count: int) -> dict[str, object]:
    """A look at an alert after two and a half hours; so many are firing."""
    expression = f'count(ALERTS{{alertstate="firing", {alert}}})'
    return {"expr": expression, "eval_time": "150m", "exp_samples": [{"labels": "{}", "value": count}] if count else []}


def test_prometheus_takes_the_files() -> None:
    promtool("check", "config", "prometheus.yml")
    assert f"{len(BAD)} rules found" in promtool("check", "rules", "alerts.yml")


def test_each_alert_comes_in_its_time_and_none_without_cause(tmp_path: Path) -> None:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == BAD.keys()
    tests: list[dict[str, object]] = [
        {"interval": "1m", "input_series": of(series), "promql_expr_test": [firing(f'alertname="{alert}"', 1)]}
        for alert, series in BAD.items()
    ]
    tests.append({"interval": "1m", "input_series": of(GOOD), "promql_expr_test": [firing('alertname=~".+"', 0)]})
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(DEPLOY / "alerts.yml")], "tests": tests}))
    promtool("test", "rules", file)


async def test_prometheus_reads_a_node(server: Server, tmp_path: Path) -> None:
    """With the files as they are, but for the ports and the interval."""
    text = (DEPLOY / "prometheus.yml").read_text()
    text = text.replace("127.0.0.1:8766", f"127.0.0.1:{server.node.ops_port}")
    text = re.sub(r"scrape_interval: \w+", "scrape_interval: 1s\n  evaluation_interval: 1s", text)
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    port = a_free_port()

    def ask(query: str) -> float | None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}", timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    words = "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        program("prometheus", "prometheus"), *words, cwd=tmp_path, stdout=DEVNULL, stderr=DEVNULL
    )
    try:

        async def read() -> bool:
            assert process.returncode is None, "Prometheus has ended"
            return await asyncio.to_thread(ask, 'up{job="coordinator"} * on (instance) coordinator_database_up') == 1

        await eventually(read, "Prometheus does not read the node")
        assert await asyncio.to_thread(ask, "count(ALERTS)") is None
    finally:
        process.terminate()
        await process.wait()


def test_the_dashboard_of_grafana_is_whole() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "two panels overlap"
    assert max(x for x, _ in cells) < 24


def test_what_is_of_the_whole_coordinator_is_not_added_up() -> None:
    """Each node tells the same of it."""
    text = (DEPLOY / "README.md").read_text().partition("What the database says")[2].partition(") is the")[0]
    of_all = re.findall(r"`(coordinator_[a-z_]+)`", text)
    assert len(of_all) > 5
    used = (DEPLOY / "alerts.yml").read_text() + (DEPLOY / "grafana.json").read_text()
    for name in of_all:
        assert not re.search(rf"sum( by \([a-z, ]+\))? ?\({name}\b", used), name
