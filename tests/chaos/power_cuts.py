"""Power cuts under load: `python -m tests.chaos.power_cuts [--cuts 50] [--seed N] [--lying-disk]`.

The disk of Postgres forgets at each cut what was not synced (`forgetful_disk.c`, a library below the C library, which
keeps beside the data what the last fsync of each file had).  Nothing that was acknowledged may be missing afterwards.
`--lying-disk` is the control: it stores the log only with the next sync of something else, as a server without `fsync`
might, and has to be caught.  Needs a C compiler.
"""

from __future__ import annotations

import argparse
import sys

import uvloop
from rich.console import Console

from tests.chaos.__main__ import table_of, tell
from tests.chaos.programs import Disk
from tests.chaos.run import Order, run

EVERY = 4.0
"""Seconds from one cut to the next, on average, of those that are not passed over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lying-disk", action="store_true")
    words = parser.parse_args()

    disk: Disk = "lying" if words.lying_disk else "forgetful"
    order = Order(words.seed, words.cuts * EVERY, kinds=("cut_power",), every=EVERY / 4, disk=disk)
    outcome = uvloop.run(run(order))
    tell(outcome)
    Console().print(table_of([outcome]))
    caught = bool(outcome.violations) or outcome.drained is None
    sys.exit(caught is not words.lying_disk)


if __name__ == "__main__":
    main()
