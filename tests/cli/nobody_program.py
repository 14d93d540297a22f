"""Runs commands, each line of standard input one, for an account that has neither a home folder nor a name.

Each line, a JSON list of words, is answered by one: exit code, all output, and the exception if it was none of a
command's own ends.
"""

from __future__ import annotations

import io
import json
import os
import pwd
import sys
from contextlib import redirect_stderr, redirect_stdout

NOBODY = 54321


def nameless(_: object) -> pwd.struct_passwd:
    raise KeyError(f"getpwuid(): uid not found: {NOBODY}")


def main() -> None:
    # Before anything of the program is imported, which is when such an account was found out first.
    os.environ.pop("HOME", None)
    os.getuid = os.geteuid = lambda: NOBODY
    pwd.getpwuid = nameless

    import typer

    from coordinator.cli import build

    command = typer.main.get_command(build())
    for line in sys.stdin:
        said, fault, code = io.StringIO(), None, 0
        with redirect_stdout(said), redirect_stderr(said):
            try:
                command.main(json.loads(line), prog_name="coordinator")
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException as failure:
                fault = repr(failure)
        sys.stdout.write(json.dumps([code, said.getvalue(), fault]) + "\n")


if __name__ == "__main__":
    main()
