"""The programs that may work for a service: its settings `agents` and `agents_only`.  protocol.md, "Allowed clients"

Pure.  Versions are compared number by number; what follows the numbers is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

from coordinator.model import ServiceSettings

_AGENT = re.compile(r"([^\s/]+)/([0-9]+(?:\.[0-9]+)*)")
"""`name/version`, as a client says it in `hello`; more may follow."""


@dataclass(frozen=True, slots=True)
class TooOld:
    """A program that gets no work of a service: older than the `minimum`, or, if that is None, not listed."""

    agent: str | None
    minimum: str | None
    text: str


def too_old(agent: str | None, settings: ServiceSettings) -> TooOld | None:
    """Tell whether the program of a session gets no work for what it is; None if it gets some."""
    if not settings.agents and not settings.agents_only:
        return None

    parts = None if agent is None else _AGENT.match(agent)
    name, version = parts.groups() if parts is not None else (None, "")
    minimum = None if name is None else settings.agents.get(name)

    if minimum is not None:
        if not _is_older(version, minimum):
            return None
        return TooOld(agent, minimum, f"{name} {version} is too old: install {minimum} or newer")
    if not settings.agents_only:
        return None
    said = "a program that does not say its name and version" if name is None else name
    return TooOld(agent, None, f"{said} may not work for the service: {_allowed(settings)}")


def _is_older(version: str, minimum: str) -> bool:
    pairs = zip_longest(_numbers(version), _numbers(minimum), fillvalue=0)
    return next((mine < least for mine, least in pairs if mine != least), False)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def _allowed(settings: ServiceSettings) -> str:
    allowed = ", ".join(f"{name} from {minimum} on" for name, minimum in sorted(settings.agents.items()))
    return f"use {allowed}" if allowed else "it takes none now"
