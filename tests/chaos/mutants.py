"""Whether the checker catches a program that was broken on purpose: `python -m tests.chaos.mutants [NAME …]`.

One short run for each way of breaking it, with the faults that let it be seen.  Exit code 1 if one goes unseen.
"""

from __future__ import annotations

import argparse
import sys

import uvloop
from rich.console import Console
from rich.table import Table

from tests.chaos.mutations import MUTATIONS
from tests.chaos.run import Order, Outcome, run

TRIES = 3
"""Runs in which a mutation has to be caught, each with another seed."""


async def caught(name: str) -> list[Outcome]:
    """Run with a mutation until it is caught, `TRIES` times at most."""
    mutation, outcomes = MUTATIONS[name], list[Outcome]()
    for seed in range(1, TRIES + 1):
        order = Order(seed, mutation.seconds, 2, 20, mutation.kinds, mutation.every, name, drain=15.0)
        outcomes.append(await run(order))
        if outcomes[-1].violations:
            break
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MUTATIONS, []], metavar="NAME")
    names = parser.parse_args().names or list(MUTATIONS)

    table, unseen = Table("mutation", "runs", "broken promises"), False
    for name in names:
        outcomes = uvloop.run(caught(name))
        rules = sorted({violation.rule for violation in outcomes[-1].violations})
        table.add_row(name, str(len(outcomes)), ", ".join(rules) or "none: it went unseen")
        Console(stderr=True).print(f"{name}: {', '.join(rules) or 'UNSEEN'}")
        unseen |= not rules
    Console().print(table)
    sys.exit(unseen)


if __name__ == "__main__":
    main()
