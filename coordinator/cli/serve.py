"""`coordinator serve` and `coordinator config`: the settings as flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordinator.cli.access import AsJson, without_none
from coordinator.cli.exits import with_exit_codes
from coordinator.cli.output import write_json
from coordinator.config import Settings, default_data_folder

_COMPUTED_DEFAULTS = {
    "data": str(default_data_folder()),
    "node_name": "host name and port",
    "registration": "open on loopback, else token",
    "viewers": "open on loopback, else token",
}
"""The defaults, as the help shows them, of settings whose default is computed."""


def _serve(settings: Settings) -> None:
    """Serve: one node, or several processes with --processes, until SIGTERM or Ctrl-C.

    Without --database it starts and owns a Postgres in --data. It is ready when `GET /readyz` answers 200. Each
    flag can also be given as an environment variable `COORDINATOR_<NAME>`, in a TOML file (--config), or as a
    file of its name in systemd's credentials folder; what comes first in this list counts.

    Example: `coordinator serve --port 8765 --data ./data`
    """
    from coordinator import processes  # the server's modules, which no other command needs

    code = processes.run(settings)
    if code:
        raise typer.Exit(code)


def _show(settings: Settings, json: bool = False) -> None:
    """Show the settings that are in force, without secrets.

    Takes what `coordinator serve` takes.

    Example: `coordinator config --json`
    """
    shown = settings.public()
    if json:
        write_json(shown)
        return

    table = Table.grid(padding=(0, 2))
    for name, value in shown.items():
        text = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
        table.add_row(Text(name, "bold"), Text(text))
    Console().print(table)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that it takes every setting as a flag, and `--config`."""
    parameters_of_command = inspect.signature(command).parameters.values()
    own = [parameter.name for parameter in parameters_of_command if parameter.name != "settings"]

    def flagged(config: Path | None, **values: Any) -> None:
        rest = {name: values.pop(name) for name in own}
        flags = {name: value for name, value in values.items() if value != []}
        command(Settings(config=config, **without_none(**flags)), **rest)

    file = typer.Option("--config", metavar="FILE", help="TOML file with settings.")
    parameters = [_parameter("config", Annotated[Path | None, file], None)]
    parameters += [_flag(name, field) for name, field in Settings.model_fields.items()]
    parameters += [_parameter("json", AsJson, False)] if own else []
    flagged.__name__ = command.__name__
    flagged.__doc__ = command.__doc__
    flagged.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    return with_exit_codes(flagged)


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    option = f"--{name.replace('_', '-')}"
    default = _COMPUTED_DEFAULTS.get(name, field.default)
    many = isinstance(field.default, tuple)
    yes_no = field.annotation is bool
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    expected = str(extra.get("expected", ""))

    # Settings itself checks the values, so that a flag is refused with the same words as a line of the file.
    kind: Any = bool if yes_no else list[str] if many else str
    flag = typer.Option(
        *([option, f"--no-{option[2:]}"] if yes_no else [option]),
        help=f"{field.description} Default: {'none' if default in (None, (), '') else default}.",
        metavar=None if yes_no else _metavar(name, expected),
        show_default=False,
    )
    return _parameter(name, Annotated[kind | None, flag], None)


def _metavar(name: str, expected: str) -> str:
    if expected.startswith("one of "):
        return expected.removeprefix("one of ").replace(", ", "|")
    if "number" in expected:
        return "SECONDS" if expected.startswith("seconds") else "N"
    return {"data": "DIR", "tls_cert": "FILE", "tls_key": "FILE", "database": "DSN"}.get(name, "TEXT")


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


serve = with_settings(_serve)
show = with_settings(_show)
