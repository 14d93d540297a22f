"""All kinds of trouble: `python -m tests.trouble [--seconds 2] [--only NAME …]`.

Prints what was done to Postgres, what clients saw, and how long it took until they worked again.  Exit code 1 if a part
of the node failed, clients saw anything but `unavailable`, or it took too long.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coordinator.observe.logs import configure
from tests.trouble import poolers
from tests.trouble.kinds import KINDS
from tests.trouble.server import TroubledPostgres, troubled_postgres
from tests.trouble.watch import Sight, watching


async def see_all(postgres: TroubledPostgres, seconds: float, only: list[str]) -> list[Sight]:
    """Make one trouble after the other."""
    with tempfile.TemporaryDirectory() as folder:
        async with watching(postgres, Path(folder)) as watch:
            sights = []
            for kind in KINDS:
                if (not only or kind.name in only) and (kind.name != "disk full" or postgres.has_small_disk):
                    sights.append(await watch.see(kind, seconds))
                    await watch.ready()
            return sights


def table_of(sights: list[Sight]) -> Table:
    """All that was seen, a line each."""
    table = Table("what was done to Postgres", "what clients saw", "/readyz", "seconds until normal", "wrong")
    for sight in sights:
        answers = ", ".join(f"{code} {times}" for code, times in sight.answers.most_common())
        table.add_row(sight.kind.done, answers, sight.told, f"{sight.normal_after:.1f}", "; ".join(sight.wrong))
    return table


def main() -> int:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each trouble lasts")
    parser.add_argument("--only", nargs="*", default=[], help="names of kinds")
    arguments = parser.parse_args()

    configure("console", "error")
    with troubled_postgres() as postgres:
        sights = asyncio.run(see_all(postgres, arguments.seconds, arguments.only))
        pooled = asyncio.run(poolers.try_all(postgres)) if not arguments.only else []
    console = Console(width=200)
    console.print(table_of(sights))
    for line in pooled:
        console.print(f"{line.name}: {line.seen}", highlight=False)
    return int(any(sight.wrong for sight in sights) or not all(line.good for line in pooled))


if __name__ == "__main__":
    sys.exit(main())
