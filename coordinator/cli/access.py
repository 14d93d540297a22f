"""The options of a command that say which server it speaks to, and with which token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.config import Settings, environment_token
from coordinator.errors import ConfigError

DEFAULT_SERVER = "ws://127.0.0.1:8765"

Server = Annotated[str, typer.Option(metavar="URL", help="The server: ws://, wss://, http:// or https://.")]
Token = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", help="Admin token. Default: COORDINATOR_TOKEN, else the file DATA/admin-token."),
]
DataFolder = Annotated[
    Path | None, typer.Option(metavar="DATA", help="Data folder of the server, if it runs on this machine.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line, and no tables.")]


def find_token(token: str | None, data: Path | None) -> str | None:
    """Return the token that was given, else that of the environment, else that of the data folder, else None.

    Raises:
        ConfigError: the data folder has a token that this account may not read.
    """
    found = token or environment_token()
    if found is not None:
        return found

    path = Settings(**without_none(data=data)).data / "admin-token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as failure:
        raise ConfigError(f"token: {path} cannot be read: {failure}") from failure


def stats_tokens(token: str | None, data: Path | None) -> list[str | None]:
    """List the tokens to try on the stats channel: only a given one, else none at all, then the data folder's.

    Raises:
        ConfigError: as `find_token`.
    """
    given = token or environment_token()
    if given is not None:
        return [given]
    found = find_token(None, data)
    return [None] if found is None else [None, found]


def without_none(**flags: Any) -> dict[str, Any]:
    """Return the flags that were given: those that are not None."""
    return {name: value for name, value in flags.items() if value is not None}
