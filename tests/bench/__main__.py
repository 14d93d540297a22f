"""Figures of the coordinator on this machine: `python -m tests.bench`.

    python -m tests.bench [--long] [--json FILE] [--only PART …] [--postgres-bin DIR]

A fresh embedded Postgres, a real `coordinator serve` with default settings, client processes on real sockets, all on
this machine and all gone at the end.  The short form takes about a minute; the long one, for the record, twenty
minutes and some gigabytes.  Each figure stands beside what was measured in the same rounds: machines differ, and so
does one machine from minute to minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import uvloop
from rich.console import Console

from tests.bench import (
    at_scale,
    churn,
    contention,
    crowd,
    growth,
    held,
    latency,
    life,
    observation,
    throughput,
    watching,
)
from tests.bench.figures import Figure, table_of
from tests.bench.world import World, world

LONGEST = 2700.0
"""Seconds after which it gives up."""

Part = Callable[[World], Awaitable[list[Figure]]]


def parts(*, long: bool) -> dict[str, Part]:
    """The parts of the bench by name, in the order in which they are measured."""
    if long:
        return {
            "throughput": lambda world: throughput.measure(world, 5, 1500),
            "life": lambda world: life.measure(world, 5, 1_000_000),
            "latency": lambda world: latency.measure(world, 5, 1000, 8),
            "contention": lambda world: contention.measure(world, 5, 1500),
            "held": lambda world: held.measure(world, 60, 600, 0),
            "churn": churn.measure,
            "observation": lambda world: observation.measure(world, 9, 800),
            "watching": lambda world: watching.measure(world, 9, 1500),
            "services": lambda world: growth.services(world, 5, (3, 10, 50)),
            "history": lambda world: growth.history(world, 5, (1, 100, 10_000)),
            "sessions": lambda world: crowd.measure(world, 5, (1, 100, 1000, 10_000), pings=True),
            "catalogue": lambda _: at_scale.measure(10_000_000, 1_000_000),
        }

    return {
        "throughput": lambda world: throughput.measure(world, 5, 300),
        "life": lambda world: life.measure(world, 3, 180_000),
        "latency": lambda world: latency.measure(world, 5, 100, 2),
        "contention": lambda world: contention.measure(world, 3, 600),
        "held": lambda world: held.measure(world, 10, 30, 30_000),
        "history": lambda world: growth.history(world, 5, (1, 1000)),
        "sessions": lambda world: crowd.measure(world, 5, (1, 1000), pings=False),
    }


async def main(chosen: argparse.Namespace) -> list[Figure]:
    """Measure every chosen part, each on a node of its own."""
    figures: list[Figure] = []
    async with asyncio.timeout(LONGEST), world(chosen.postgres_bin) as here:
        for name, part in parts(long=chosen.long).items():
            if chosen.only and name not in chosen.only:
                continue

            begun = perf_counter()
            await here.start()
            found = await part(here)
            await here.stop()
            figures += found
            Console(stderr=True).print(f"{name}: {perf_counter() - begun:.0f} s")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the form for the record")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--only", nargs="*", metavar="PART", choices=list(parts(long=True)), help="only these parts")
    parser.add_argument(
        "--postgres-bin", type=Path, metavar="DIR", help="the Postgres of this folder, with default settings"
    )
    chosen = parser.parse_args()
    found = uvloop.run(main(chosen))
    Console(width=None if sys.stdout.isatty() else 160).print(table_of(found))
    if chosen.json is not None:
        where = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        chosen.json.write_text(
            json.dumps({**where, "figures": [figure.as_json() for figure in found]}, indent=1) + "\n"
        )
