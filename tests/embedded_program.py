"""A program that owns a data folder, for the tests to run beside themselves and to kill.

Writes one line of JSON when its server is up (`{"dsn": …}`) or has failed to come up (`{"error": …}`), then
serves until its standard input ends.

    embedded_program.py FOLDER [BINDIR UID GID]

With a UID it becomes that account first, by itself, since that account may not be able to run this Python.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from coordinator.embedded import EmbeddedPostgres, own_folder
from coordinator.errors import EmbeddedError


def tell(**news: str) -> None:
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def main(root: Path, bindir: Path | None) -> None:
    try:
        with own_folder(root):
            postgres = EmbeddedPostgres(root, bindir=bindir)
            postgres.start()
            tell(dsn=postgres.dsn)
            sys.stdin.read()
            postgres.stop()
    except EmbeddedError as error:
        tell(error=str(error))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.setgroups([])
        os.setgid(int(sys.argv[4]))
        os.setuid(int(sys.argv[3]))
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
