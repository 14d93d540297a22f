"""`coordinator serve` and `coordinator config`: the settings as flags."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, get_type_hints

import typer
from pydantic.fields import FieldInfo

from coordinator.cli.access import AsJson, without_none
from coordinator.cli.exits import only_where_the_server_runs, with_exit_codes
from coordinator.cli.output import Output, write_json
from coordinator.config import RELOADED, Settings

_COMPUTED_DEFAULTS = {
    "data": "/var/lib/coordinator for root, else a per-user folder",
    "node_name": "host name and port",
    "registration": "open on loopback, else token",
    "log_format": "console in a terminal, else json",
    "viewers": "open on loopback, else token",
}
"""The defaults, as the help shows them, of settings whose default is computed."""


def _serve(settings: Settings) -> None:
    """Serve: one node, or several processes with --processes, until SIGTERM or Ctrl-C.

    Without --database it starts and owns a Postgres in --data. It is ready when `GET /readyz` answers 200. Each
    flag can also be given as an environment variable `COORDINATOR_<NAME>`, in a TOML file (--config), or as a
    file of its name in systemd's credentials folder; what comes first in this list counts. SIGHUP reads some of
    them anew, as told below, and cuts nobody off; a certificate that is replaced is used without it. In a terminal
    it tells where dashboard and token are.

    Example: `coordinator serve --port 8765 --data ./data`
    """
    with only_where_the_server_runs():
        from coordinator import processes  # the server's modules, which no other command needs

    code = processes.run(settings, greet)
    if code:
        raise typer.Exit(code)


def greet(settings: Settings, port: int) -> None:
    """Tell a person at a terminal where the dashboard is, where the token, and what to do next."""
    if not sys.stdout.isatty():
        return
    from coordinator.address_file import url_here
    from coordinator.prepare import ADMIN_TOKEN_FILE

    page = "http" + url_here(settings, port).removeprefix("ws")
    folder = "" if "data" not in settings.model_fields_set else f" --data {quote(str(settings.data))}"
    file = f"{settings.data / ADMIN_TOKEN_FILE} (an admin's; commands with the same --data find it)"
    made = "coordinator token issue --database DSN --role admin --label me"
    lines = {
        "dashboard": f"{page}/",
        "token": file if settings.database is None else made,
        "next": f"coordinator item import FILE --service dm_check{folder}, and coordinator work --help",
    }
    typer.echo("".join(f"{name:<11}{text}\n" for name, text in lines.items()), nl=False)


def _show(settings: Settings, json: AsJson = False) -> None:
    """Show the settings that are in force, without secrets.

    Takes what `coordinator serve` takes.

    Example: `coordinator config --json`
    """
    shown = settings.public()
    if json:
        write_json(shown)
        return

    Output(as_json=False).answer(shown)


def with_settings(
    command: Callable[..., None],
    fixed: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Callable[..., None]:
    """Wrap a command so that it takes every setting as a flag, and `--config`, beside its own options.

    Settings in `fixed` are no flags, and have these values whatever environment and files say; `defaults` are those
    that the help tells, where they are not the usual ones.
    """
    fixed = fixed or {}
    hints = get_type_hints(command, include_extras=True)
    own = {name: one for name, one in inspect.signature(command).parameters.items() if name != "settings"}

    def flagged(config: Path | None, **values: Any) -> None:
        rest = {name: values.pop(name) for name in own}
        flags = {name: value for name, value in values.items() if value != []}
        command(Settings(config=config, **without_none(**flags), **fixed), **rest)

    file = typer.Option("--config", metavar="FILE", help="TOML file with settings.")
    parameters = [_parameter("config", Annotated[Path | None, file], None)]
    parameters += [_parameter(name, hints[name], one.default) for name, one in own.items()]
    parameters += [
        _flag(name, field, (defaults or {}).get(name))
        for name, field in Settings.model_fields.items()
        if name not in own and name not in fixed
    ]
    flagged.__name__ = command.__name__
    flagged.__doc__ = command.__doc__
    flagged.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    return with_exit_codes(flagged)


def _flag(name: str, field: FieldInfo, told: object = None) -> inspect.Parameter:
    option = f"--{name.replace('_', '-')}"
    default = _COMPUTED_DEFAULTS.get(name, field.default) if told is None else told
    many = isinstance(field.default, tuple)
    yes_no = field.annotation is bool
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    expected = str(extra.get("expected", ""))

    reread = " Read anew on SIGHUP." if name in RELOADED else ""

    # Settings itself checks the values, so that a flag is refused with the same words as a line of the file.
    kind: Any = bool if yes_no else list[str] if many else str
    flag = typer.Option(
        *([option, f"--no-{option[2:]}"] if yes_no else [option]),
        help=f"{field.description} Default: {'none' if default in (None, (), '') else default}.{reread}",
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
