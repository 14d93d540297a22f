"""The command line: `coordinator`."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator import __version__
from coordinator.cli.command_tree import CommandTree


def build() -> typer.Typer:
    """Build the program with all its commands."""
    # Markdown, since in rich's own markup the brackets of our help texts would vanish.
    app = typer.Typer(
        name="coordinator",
        cls=CommandTree,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_program)
    return app


def main() -> None:
    """Run the command that the program was called with; never returns."""
    build()(prog_name="coordinator")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _program(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Share out checks among volunteers: server, volunteers' daemon and operation.

    Exit codes: 0 done, 1 refused by the server, 2 wrong usage, 3 server not reached.
    """
