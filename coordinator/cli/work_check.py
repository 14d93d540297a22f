"""`coordinator work --check`: a line for each thing that the daemon needs, and nothing asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer

from coordinator.cli.access import ServerAccess
from coordinator.client import preflight
from coordinator.client.checker_program import CheckerProgram
from coordinator.client.checkers import Checker, close_checker
from coordinator.client.identity import default_folder
from coordinator.client.library import AGENT
from coordinator.client.preflight import Finding
from coordinator.errors import ConfigError
from coordinator.printable import printable


class Wanted(NamedTuple):
    """The daemon that is looked at: what its options have said."""

    server: ServerAccess
    plaintext: bool
    data: Path | None
    client_id: str | None
    services: list[str]
    profiles: dict[str, dict[str, Any]]
    program: CheckerProgram | None


def check_work(wanted: Wanted, load: Callable[[], dict[str, Checker]]) -> bool:
    """Print a line for each finding; returns whether all is in order.  `load` loads the checkers."""
    return asyncio.run(_print_all(wanted, load))


async def _print_all(wanted: Wanted, load: Callable[[], dict[str, Checker]]) -> bool:
    good = True
    async for finding in _look(wanted, load):
        good = good and finding.ok
        mark = "ok   " if finding.ok else "WRONG"
        typer.echo(printable(f"{mark}  {finding.subject}: {finding.text}"))
    return good


async def _look(wanted: Wanted, load: Callable[[], dict[str, Checker]]) -> AsyncIterator[Finding]:
    address, authority = wanted.server.address, wanted.server.authority
    finding, server = preflight.look_at_address(address, authority, plaintext=wanted.plaintext)
    yield finding
    way = preflight.look_at_proxy("way to the server", server.url) if server is not None else None
    if way is not None:
        yield way

    folder = wanted.data if wanted.data is not None else default_folder()
    finding, identity = preflight.look_at_identity(folder, wanted.client_id)
    yield finding
    if server is not None and identity is not None and way is not None and way.ok:
        for finding in await preflight.look_at_server(server, identity, wanted.services, wanted.profiles, AGENT):
            yield finding

    try:
        checkers = load()
    except ConfigError as failure:
        yield Finding("checker", False, str(failure))
        return

    if wanted.program is not None:
        yield await preflight.look_at_program(wanted.program)
    for service, checker in checkers.items():
        for finding in await preflight.look_at_checker(service, checker, wanted.profiles.get(service, {})):
            yield finding
        await close_checker(checker)
