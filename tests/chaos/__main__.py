"""Chaos: `python -m tests.chaos --seed N [--seeds COUNT] [--time S] [--nodes 2] [--clients 20]`.

Real nodes on a real Postgres with a synchronous standby, clients that write down all they do, and faults in all of
them, drawn from the seed.  At the end a checker decides, by that history and the rows of the database, whether every
promise was kept.  Exit code 1 if one was not.

`--kinds` has only these faults, one each `--every` seconds; `--mutation NAME` breaks the program on purpose, and
`python -m tests.chaos.mutants` does so in all known ways; `--keep FOLDER` leaves history and logs there.

The disk is filled where this account may mount one of memory, and the clock stepped where Debian's libfaketime is
installed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import EVERY, KINDS
from tests.chaos.mutations import MUTATIONS
from tests.chaos.run import DRAINED_WITHIN, Order, Outcome, run

SHOWN = 20
"""Violations of a run that are printed, of each rule."""


async def run_all(orders: list[Order], keep: Path | None) -> list[Outcome]:
    """Carry out runs one after another, each with its findings printed as soon as it is over."""
    outcomes = []
    for order in orders:
        outcome = await run(order, keep=None if keep is None else keep / f"seed{order.seed}")
        outcomes.append(outcome)
        tell(outcome)
    return outcomes


def tell(outcome: Outcome) -> None:
    """Print what was found in one run."""
    print_ = Console(stderr=True, soft_wrap=True, markup=False).print
    rules = sorted({violation.rule for violation in outcome.violations})
    for rule in rules:
        found = [violation.text for violation in outcome.violations if violation.rule == rule]
        print_(f"seed {outcome.order.seed}: {rule}: {len(found)}")
        for text in found[:SHOWN]:
            print_(f"    {text}")
    for error in outcome.errors[:SHOWN]:
        print_(f"seed {outcome.order.seed}: {error}")
    print_(f"seed {outcome.order.seed}: {', '.join(f'{kind} {n}' for kind, n in sorted(outcome.faults.items()))}")


def table_of(outcomes: list[Outcome]) -> Table:
    """All runs, a line each."""
    table = Table("seed", "seconds", "faults", "items", "submits stored", "broken promises", "tracebacks", "drained in")
    for outcome in outcomes:
        drained = f"> {DRAINED_WITHIN:g} s" if outcome.drained is None else f"{outcome.drained:.1f} s"
        table.add_row(
            str(outcome.order.seed),
            f"{outcome.order.seconds:g}",
            str(outcome.faults.total()),
            f"{outcome.items:,}",
            f"{outcome.submits:,}",
            str(len(outcome.violations)),
            str(len(outcome.errors)),
            drained,
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="runs, each with the next seed")
    parser.add_argument("--time", type=float, default=60.0, help="seconds of faults in each run")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[])
    parser.add_argument("--every", type=float, default=EVERY)
    parser.add_argument("--mutation", choices=MUTATIONS)
    parser.add_argument("--keep", type=Path)
    words = parser.parse_args()

    orders = [
        Order(seed, words.time, words.nodes, words.clients, tuple(words.kinds), words.every, words.mutation)
        for seed in range(words.seed, words.seed + words.seeds)
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(run_all(orders, words.keep))
    Console().print(table_of(outcomes))
    sys.exit(any(outcome.violations or outcome.drained is None for outcome in outcomes))


if __name__ == "__main__":
    main()
