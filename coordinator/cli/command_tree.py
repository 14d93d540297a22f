"""The tree of all commands, of which only those that are called or listed are imported."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from coordinator.cli.help_texts import GROUP_HELP

OWN_COMMANDS = {
    "demo": "coordinator.cli.demo:demo",
    "serve": "coordinator.cli.serve:serve",
    "work": "coordinator.cli.work:work",
    "config": "coordinator.cli.serve:show",
    "top": "coordinator.cli.top:top",
    "backup": "coordinator.cli.backup:backup",
    "restore": "coordinator.cli.backup:restore",
    "item import": "coordinator.cli.item_import:item_import",
    "db migrate": "coordinator.cli.database:migrate_",
    "db status": "coordinator.cli.database:status",
    "db distribute": "coordinator.cli.database:distribute",
    "db sql": "coordinator.cli.database:sql",
    "db fence": "coordinator.cli.backup:fence",
    "db upgrade": "coordinator.cli.backup:upgrade",
}
"""The function of each command that is no request of the admin channel, in the order of the help."""


class CommandTree(TyperGroup):
    """The commands of the program.  The modules of each are imported when it is first asked for."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command or group of this name.

        If there is none, returns None, and has all of them imported, since typer looks among them for a similar name.
        """
        if cmd_name not in self.commands:
            self._add(cmd_name)
        if cmd_name not in self.commands:
            self.list_commands(ctx)
        return self.commands.get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names of all commands and groups, in the order of the help."""
        from coordinator.cli.requests import requests_by_command

        own = [words for words in OWN_COMMANDS if " " not in words]
        groups = [words.split()[0] for words in OWN_COMMANDS if " " in words]
        names = list(dict.fromkeys([*own, *requests_by_command(), *groups]))
        for name in names:
            if name not in self.commands:
                self._add(name)
        return names

    def _add(self, name: str) -> None:
        """Import what a command or group needs, and add it; does nothing if there is none of this name."""
        group = typer.Typer(
            name=name,
            help=GROUP_HELP.get(name),
            no_args_is_help=True,
            add_completion=False,
            rich_markup_mode=self.rich_markup_mode,
        )
        if name not in OWN_COMMANDS:
            from coordinator.cli.requests import add_requests

            add_requests(group, name)

        for words, function in OWN_COMMANDS.items():
            if words.split()[0] == name:
                group.command(words.split()[-1])(resolve_name(function))

        if group.registered_commands:
            self.commands[name] = get_group(group) if name in GROUP_HELP else get_command(group)
