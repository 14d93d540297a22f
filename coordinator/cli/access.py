"""The options of a command that say which server it speaks to, which authority it trusts, and with which token."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from coordinator.errors import ConfigError, NoHomeFolder

DEFAULT_SERVER = "ws://127.0.0.1:8765"

Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The server: ws://, wss://, http:// or https://. Default: COORDINATOR_SERVER, else the address in the "
        f"file DATA/address, else {DEFAULT_SERVER}.",
    ),
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Certificate of a private authority that the server's is checked by, as PEM. Default: COORDINATOR_CA, "
        "else the authorities of this machine.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", help="Admin token. Default: COORDINATOR_TOKEN, else the file DATA/admin-token."),
]
DataFolder = Annotated[
    Path | None, typer.Option(metavar="DATA", help="Data folder of the server, if it runs on this machine.")
]
Wide = Annotated[
    bool, typer.Option("--wide", help="Show all columns, long ids and whole times, however wide that gets.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line, and no tables.")]


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """The server of a command: its address, and the file of the authority that its certificate is checked by."""

    address: str
    authority: Path | None = None


def of_commands(name: Literal["TOKEN", "SERVER", "CA"]) -> str | None:
    """Return what commands take from COORDINATOR_<NAME>, which is no setting of a node; None if it is not set."""
    return os.environ.get(f"COORDINATOR_{name}") or None


def find_server(server: str | None, data: Path | None, authority: Path | None) -> ServerAccess:
    """Return the server that was given, else that of the environment, of the data folder, or the usual one."""
    address = server or of_commands("SERVER") or _address_in(data) or DEFAULT_SERVER
    by_environment = of_commands("CA")
    return ServerAccess(address, authority or (Path(by_environment) if by_environment else None))


def _address_in(data: Path | None) -> str | None:
    """Return the address that a server has left in its data folder; None if none runs, or it cannot be read."""
    from coordinator.config import Settings  # slow to import, and not needed where the address is given

    try:
        return Settings(**without_none(data=data)).address_file.read_text(encoding="ascii").strip() or None
    except (ConfigError, OSError, UnicodeError):
        return None


def find_token(token: str | None, data: Path | None) -> str | None:
    """Return the token that was given, else that of the environment, else that of the data folder, else None.

    Raises:
        ConfigError: the data folder has a token that this account may not read.
    """
    found = token or of_commands("TOKEN")
    if found is not None:
        return found

    from coordinator.config import Settings  # as above

    try:
        path = Settings(**without_none(data=data)).data / "admin-token"
    except NoHomeFolder:  # so no server of this account has left a token
        return None
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
    given = token or of_commands("TOKEN")
    if given is not None:
        return [given]
    found = find_token(None, data)
    return [None] if found is None else [None, found]


def without_none(**flags: Any) -> dict[str, Any]:
    """Return the flags that were given: those that are not None."""
    return {name: value for name, value in flags.items() if value is not None}
