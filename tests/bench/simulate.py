"""A day of 100,000 clients, in minutes: `python -m tests.bench.simulate [--clients N] [--measure] [--json]`.

Plays who comes when, how fast each is, the outside API's limit (180 requests in 15 minutes), broken connections,
give-backs, hanging clients and the end of a node, on a simulated clock, against the project's own rules: the pool's
size and the builder's runs, rank and chance within it, turns between clients, batches of claims and submits, what a
give-back costs, how broken buckets are cut, and how the client's library tries again.  Tells how long asks and items
wait, how large the pool is, what the database has to do, and, with what its statements cost, how many nodes and what
database another number of clients needs (`--scale`, default one million).

The costs are options; `--measure` takes them anew, on a fresh embedded Postgres through the store's own functions.
What only SQL decides is modelled; `tests/bench/test_simulation.py` holds each step of the model against the real store.

Roughly: the database answers as fast under load as alone; connections spread evenly over the nodes; one service; a
client that is cut off stops checking; items are added evenly over the day, and none is deleted or prioritised later.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import sys
import time

from rich.console import Console

from tests.bench.simulation.costs import Costs
from tests.bench.simulation.day import Day
from tests.bench.simulation.measure import measured
from tests.bench.simulation.report import figures, show
from tests.bench.simulation.scenario import Scenario

_SCENARIO = {
    "clients": "how many clients there are",
    "nodes": "how many nodes they connect to",
    "hours": "how long is played, from midnight on",
    "seed": "of all that is drawn; the same seed plays the same day",
    "load": "what is added, as a share of what the clients can check",
}


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    of_scenario = {one.name: one for one in dataclasses.fields(Scenario)}
    for name, help_text in _SCENARIO.items():
        default = of_scenario[name].default
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{help_text} (default {default})")
    parser.add_argument("--scale", type=int, default=1_000_000, help="the number of clients that is asked about")
    parser.add_argument("--measure", action="store_true", help="measure what statements cost first")
    parser.add_argument("--json", action="store_true", help="print figures, not tables")
    costs = parser.add_argument_group("costs", "milliseconds of a core unless said otherwise")
    for one in dataclasses.fields(Costs):
        option = "--" + one.name.replace("_", "-")
        help_text = one.metadata["help"].replace("%", "%%")
        costs.add_argument(option, type=float, default=None, help=f"{help_text} (default {one.default})")
    return parser


def main() -> None:
    """Read the options, play, tell."""
    chosen = vars(_options().parse_args())
    console = Console(stderr=chosen["json"])
    costs = Costs()
    if chosen["measure"]:
        costs = asyncio.run(measured())
        console.print(costs)
    given = {one.name: chosen[one.name] for one in dataclasses.fields(Costs) if chosen[one.name] is not None}
    day = Day(Scenario(**{name: chosen[name] for name in _SCENARIO}), dataclasses.replace(costs, **given))
    gc.set_threshold(1_000_000)  # a day makes millions of objects, and hardly any circles
    begun = time.perf_counter()
    day.play()
    found = figures(day, time.perf_counter() - begun, chosen["scale"])
    if chosen["json"]:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        show(found, console)


if __name__ == "__main__":
    main()
