"""Needs of 100,000 or a million clients: `python -m tests.bench.simulate [--clients N …] [--hours H] [--measure] …`.

Tells how many nodes, statements and database cores the busiest minute of a day needs, how long asks take then, and how
long items wait, by the model of `tests/bench/capacity.py` from what each step of the work costs.  `--measure` takes
these costs anew from a node on a fresh Postgres, which takes about a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.capacity import BUSY, HOUR, Needs, Scenario, day_of, needs_of
from tests.bench.figures import percentile
from tests.bench.steps import CROWD, StepCost, Steps, Timings, measure, neighbour_of
from tests.bench.world import world

STEPS = Steps(
    claim=StepCost(1.0, 1.05, 0.35),
    bucket=StepCost(1.0, 0.74, 0.45),
    submit=StepCost(4.0, 0.91, 1.36),
    make=StepCost(0.01, 1.07, 0.06),
    add=StepCost(3.1, 18.4, 5.7),
    session=StepCost(6.1, 1.25, 2.07),
    second=StepCost(21.9, 4.5, 10.1),
)
TIMINGS = Timings(claim=0.0036, claim_more=0.00024, submit=0.0053, submit_more=0.0017, ask=0.0033)
"""Both as `--measure` found them on two cores of a small virtual machine, which other programs kept busy meanwhile."""


async def measured() -> tuple[Steps, Timings]:
    """Costs and times of all steps on this machine."""
    async with world() as here:
        await here.start()
        async with neighbour_of(here):
            return await measure(here, 5 * CROWD)


def figures(scenario: Scenario, needs: Needs) -> dict[str, Any]:
    """All that is told of one scenario, for JSON."""
    day, total = day_of(scenario), sum(needs.steps.values(), StepCost())

    return {
        "clients": scenario.clients,
        "sessions": round(needs.peak.connected),
        "nodes": needs.nodes,
        "items_settled_per_second": needs.peak.settled,
        "statements_per_second": total.statements,
        "database_cores_used": total.database_ms / 1000,
        "database_cores": total.database_ms / 1000 / BUSY,
        "node_cores_used": needs.node.total.node_ms / 1000,
        "ready_buckets": needs.pool,
        "ask_to_bucket_ms": {f"p{share}": percentile(needs.node.asks, share / 100) * 1000 for share in (50, 99)},
        "waiting_items_most": max(minute.waiting for minute in day),
        "wait_hours_most": max(minute.wait for minute in day) / HOUR,
        "clients_without_work_most": max(minute.idle for minute in day),
        "steps": {name: asdict(cost) for name, cost in needs.steps.items()},
    }


def show(found: dict[str, Any], console: Console) -> None:
    """The same as a sentence and a table."""
    asked = found["ask_to_bucket_ms"]
    console.print(
        f"{found['clients']:,} clients, {found['sessions']:,} sessions in the busiest minute: {found['nodes']} nodes, "
        f"{found['statements_per_second']:,.0f} statements/s, {found['database_cores_used']:.1f} cores of the database "
        f"used ({found['database_cores']:.0f} at {BUSY:.0%}), {found['node_cores_used']:.2f} of each node.  "
        f"Ask to bucket {asked['p50']:.1f} ms, p99 {asked['p99']:.1f} ms; {found['ready_buckets']:,} ready buckets.  "
        f"At most {found['waiting_items_most']:,.0f} items wait, for {found['wait_hours_most']:.1f} h; "
        f"at most {found['clients_without_work_most']:.0%} of the clients are without work."
    )

    table = Table("step", "statements/s", "cores of the database", "cores of the nodes")
    for name, cost in found["steps"].items():
        cores = (f"{cost[column] / 1000:.3f}" for column in ("database_ms", "node_ms"))
        table.add_row(name, f"{cost['statements']:,.1f}", *cores)
    console.print(table)


def main() -> None:
    """Read the options, reckon, tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[100_000, 1_000_000], help="how many there are")
    parser.add_argument("--hours", type=float, default=24.0, help="how long, from midnight on (default 24)")
    parser.add_argument("--load", type=float, default=0.9, help="items added, against what can be checked in a day")
    parser.add_argument("--measure", action="store_true", help="measure what the steps cost first")
    parser.add_argument("--json", action="store_true", help="print figures, not tables")
    chosen = parser.parse_args()
    if min(chosen.clients) < 1 or chosen.hours < 1:
        parser.error("there is at least one client, and an hour")

    steps, timings = asyncio.run(measured()) if chosen.measure else (STEPS, TIMINGS)
    scenarios = [Scenario(clients=clients, hours=chosen.hours, load=chosen.load) for clients in chosen.clients]
    found = [figures(scenario, needs_of(scenario, steps, timings)) for scenario in scenarios]

    if chosen.json:
        costs = {"steps": asdict(steps), "timings": asdict(timings)}
        sys.stdout.write(json.dumps({"costs": costs, "needs": found}, indent=2) + "\n")
        return
    console = Console()
    if chosen.measure:
        console.print(steps, timings)
    for needs in found:
        show(needs, console)


if __name__ == "__main__":
    main()
