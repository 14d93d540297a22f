"""A node of a run: `python -m tests.chaos.node [--mutation NAME] serve …`, else as `python -m coordinator`.

A mutation breaks the program on purpose; it is made here, in the process, so that the program has no switch for it.
"""

from __future__ import annotations

import sys

from coordinator.cli import main
from tests.chaos.mutations import MUTATIONS

if __name__ == "__main__":
    first = sys.argv[1]
    if first.startswith("--mutation="):
        MUTATIONS[first.removeprefix("--mutation=")].apply()
        del sys.argv[1]
    main()
