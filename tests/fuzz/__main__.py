"""Fuzz for so long: `python -m tests.fuzz [--minutes M]`; ends at the first thing that goes wrong, with code 1.

The tests of this folder, again and again with another seed, and with more examples than in the gate.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
from pathlib import Path
from time import monotonic

EXAMPLES = 500
"""Examples of each test in one turn."""


def main(minutes: float) -> int:
    """Run turns until the time is over; returns the exit code."""
    end = monotonic() + 60 * minutes
    turns = 0
    while monotonic() < end:
        seed = secrets.randbelow(2**32)
        words = ["-q", "-n0", "--timeout=3600", f"--hypothesis-seed={seed}", str(Path(__file__).parent)]
        environment = {**os.environ, "FUZZ_EXAMPLES": str(EXAMPLES)}
        done = subprocess.run([sys.executable, "-m", "pytest", *words], env=environment)
        if done.returncode:
            return 1
        turns += 1
        sys.stdout.write(f"turn {turns}, seed {seed}: nothing went wrong\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no new turn after so long (default 10)")
    raise SystemExit(main(parser.parse_args().minutes))
