"""Harm of floods to others: `python -m tests.hostile [--only FLOOD …] [--seconds S] [--chance ASKS]
[--harvest SECONDS]`.

A fresh Postgres and a real `coordinator serve` that takes everybody, behind a proxy as it seems; a process that
floods it; and a client beside it whose asks are timed quiet, during and after.  `nothing` is no flood: it only takes
processor time, so what is slow beside it is this machine.  All on one machine, all gone at the end.

`--chance 10000` asks so often for one chosen item instead, in all ways, and tells how often it came; `--harvest 60`
reads keys for a minute and settles none.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.figures import percentile, short
from tests.bench.world import Program, world
from tests.hostile.chance import Hunt, hunts
from tests.hostile.floods import FLOODS
from tests.hostile.harvest import Harvest, harvest
from tests.hostile.measure import MIB, STRANGERS_WELCOME, Outcome, measure

MOST_TIMES_QUIET = 2.0
MOST_GROWN = 100 * MIB


async def run(names: list[str], seconds: float) -> list[Outcome]:
    """Measure each of those floods, on a node of its own."""
    outcomes = []
    async with world() as here:
        for name in names:
            await here.start(flags=STRANGERS_WELCOME)
            flooder = await Program.start("tests.hostile.flooder")
            try:
                async with asyncio.timeout(10 * seconds + 120):
                    outcomes.append(await measure(here, flooder, name, seconds))
            finally:
                await flooder.end()
                await here.stop()
            Console(stderr=True).print(f"{name}: done")
    return outcomes


async def run_hunts(asks: int) -> list[Hunt]:
    """Hunt for one chosen item, on one node."""
    async with world() as here:
        await here.start(flags=("--registrations-per-minute", "1000000"))
        return await hunts(here, asks)


def table_of_hunts(found: list[Hunt]) -> Table:
    """All hunts: how often the chosen item came, and how often chance has it come."""
    table = Table("way", "asks", "came", "by chance", "at most")
    for hunt in found:
        came = _marked(str(hunt.hits), bad=not hunt.least <= hunt.hits <= hunt.most)
        table.add_row(hunt.way, f"{hunt.asks:,}", came, f"{hunt.expected:.1f}", f"{hunt.most:.1f}")
    return table


async def run_harvest(seconds: float) -> list[Harvest]:
    """Read keys for so long, on one node."""
    async with world() as here:
        await here.start(flags=STRANGERS_WELCOME)
        return await harvest(here, seconds)


def table_of_harvests(found: list[Harvest]) -> Table:
    """Keys that were read without settling one."""
    table = Table("who gives back by", "identities", "keys", "buckets each")
    for one in found:
        table.add_row(one.who, str(one.identities), f"{one.keys:,}", f"{one.buckets:.1f}")
    return table


def table_of(outcomes: list[Outcome]) -> Table:
    """All floods: milliseconds from ask to bucket, memory, connections of others that were lost."""
    table = Table("flood", "done", "quiet p50, p99", "during", "after", "times quiet", "memory", "left", "lost", "CPU")
    for outcome in outcomes:
        times = outcome.times_quiet
        table.add_row(
            outcome.flood,
            f"{outcome.count:,}",
            *(_both(asked) for asked in (outcome.quiet, outcome.during, outcome.after)),
            _marked(f"{times:.1f}", bad=times > MOST_TIMES_QUIET),
            _marked(f"{outcome.grown / MIB:+.0f} MiB", bad=outcome.grown > MOST_GROWN),
            f"{outcome.left / MIB:+.0f} MiB",
            _marked(str(outcome.disconnected), bad=outcome.disconnected > 0),
            f"{outcome.cpu:.2f}",
        )
    return table


def _both(asked: list[float]) -> str:
    return f"{short(percentile(asked, 0.5) * 1000)}, {short(percentile(asked, 0.99) * 1000)} ms"


def _marked(text: str, *, bad: bool) -> str:
    return f"[bold]{text}[/bold]" if bad else text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="FLOOD", choices=list(FLOODS), help="only these floods")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase (default 3)")
    parser.add_argument("--chance", type=int, metavar="ASKS", help="hunt for one chosen item instead")
    parser.add_argument("--harvest", type=float, metavar="SECONDS", help="read keys for so long instead")
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if chosen.chance:
        console.print(table_of_hunts(uvloop.run(run_hunts(chosen.chance))))
    elif chosen.harvest:
        console.print(table_of_harvests(uvloop.run(run_harvest(chosen.harvest))))
    else:
        console.print(table_of(uvloop.run(run(chosen.only or list(FLOODS), chosen.seconds))))
