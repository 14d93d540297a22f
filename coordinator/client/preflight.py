"""A look at everything that a daemon needs, before anything is asked for, in plain words.

Each function looks at one subject and returns what it finds; none raises for what is wrong with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from coordinator.client.address import Trust, check_secrecy, client_url, trust_for
from coordinator.client.causes import describe
from coordinator.client.checker_program import CheckerProgram
from coordinator.client.checkers import Checker, UpstreamLimited, UpstreamOut
from coordinator.client.identity import ClientIdentity, load_identity
from coordinator.client.profile_check import fault_of_profile
from coordinator.client.proxies import proxy_for, without_login
from coordinator.client.session import Session, SessionEnded
from coordinator.client.spool import Spool
from coordinator.errors import ConfigError, CoordinatorError
from coordinator.wire.client import Hello, OfferedServices, ServiceCard, Services, Welcome
from coordinator.wire.frames import PROTOCOL
from coordinator.wording import duration

MAX_CLOCK_DIFFERENCE = 60.0
"""Seconds; an answer may be some seconds under way, and TLS and tokens bear a minute."""

_PROGRAM_TRIAL = 1.0
"""Seconds for which a program must live to be taken as one that reads its input."""


class ServerAddress(NamedTuple):
    """The URL of a server's client channel, and what checks its certificate."""

    url: str
    trust: Trust


class Finding(NamedTuple):
    """One subject, whether it is in order, and what there is to say of it."""

    subject: str
    ok: bool
    text: str


def look_at_address(server: str, authority: Path | None, *, plaintext: bool) -> tuple[Finding, ServerAddress | None]:
    """Look at the server's address and the authority of its certificate; returns both too, unless one is wrong."""
    try:
        url = client_url(server)
        check_secrecy(url, plaintext=plaintext)
        trust = trust_for(url, authority)
    except ConfigError as failure:
        return Finding("address", False, str(failure)), None
    checked = "" if authority is None else f", its certificate by {authority}"
    return Finding("address", True, f"{url}{checked}"), ServerAddress(url, trust)


def look_at_proxy(subject: str, url: str) -> Finding:
    """Look at the way to an address."""
    try:
        proxy = proxy_for(url)
    except ConfigError as failure:
        return Finding(subject, False, str(failure))
    way = "direct, by no proxy" if proxy is None else f"by the proxy {without_login(proxy)}"
    return Finding(subject, True, way)


def look_at_identity(folder: Path, client_id: str | None) -> tuple[Finding, ClientIdentity | None]:
    """Look at the files of an identity; they are made if there are none."""
    try:
        identity = load_identity(folder, client_id)
        Spool.open(folder / "spool", identity.client_id).close()
    except ConfigError as failure:
        return Finding("identity", False, str(failure)), None
    except OSError as failure:
        return Finding("identity", False, f"The folder {folder} cannot be used: {failure}."), None
    return Finding("identity", True, f"{identity.client_id}, kept in {folder}"), identity


async def look_at_server(
    server: ServerAddress,
    identity: ClientIdentity,
    services: list[str],
    profiles: dict[str, dict[str, Any]],
    agent: str,
) -> list[Finding]:
    """Say hello to the server, and goodbye; look at its services, what they say to the profiles, and at the clocks."""
    hello = Hello(protocol=PROTOCOL, client_id=identity.client_id, secret=identity.secret, agent=agent)
    try:
        session = await Session.open(server.url, hello, server.trust)
    except (SessionEnded, ConfigError) as failure:
        return [Finding("server", False, str(failure))]
    cards = await _cards(session)
    await session.close()

    welcome = session.welcome
    known = (
        "knows this client"
        if welcome.registered
        else "does not know this client yet, which registers at its start; only then it tells if it wants an "
        "--enrolment-token"
    )
    found = [Finding("server", True, f"coordinator {welcome.server.version}, node {welcome.server.node}; it {known}")]
    if session.date is not None:
        found.append(_clock("the server", session.date))
    return [*found, *_services(welcome, services), *_profiles(cards, services, profiles)]


async def look_at_checker(service: str, checker: Checker, profile: dict[str, Any]) -> list[Finding]:
    """Have a checker make one request of its outside API, if it knows how to: such a one has a method `probe`."""
    probe = getattr(checker, "probe", None)
    if probe is None:
        return [Finding(f"checker of {service}", True, "loaded; it has no probe, so it is tried by the first item")]

    subject = f"API for {service}"
    try:
        said = await probe(profile)
        ok = True
    except UpstreamLimited as limit:
        said, ok = f"accepts the token, but takes nothing for {duration(limit.retry_after)}: {limit.why}", True
    except UpstreamOut as out:
        said, ok = f"does not work now: {out}", False
    except CoordinatorError as failure:
        said, ok = str(failure), False
    except Exception as failure:  # the call of a checker, which may raise anything
        said, ok = describe(failure), False

    date = getattr(checker, "date", None)
    clock = [] if date is None else [_clock("the API", date)]
    return [Finding(subject, ok, said), *clock]


async def look_at_program(program: CheckerProgram) -> Finding:
    """Start a program, ask it nothing, and see whether it stays."""
    async with program:
        failure = await program.ends_within(_PROGRAM_TRIAL)
    if failure is not None:
        return Finding("program", False, failure)
    return Finding("program", True, "starts, and waits for items")


def _services(welcome: Welcome, wanted: list[str]) -> Iterator[Finding]:
    offered = {card.service: card for card in welcome.services}
    for name in wanted:
        card = offered.get(name)
        if card is None:
            there = ", ".join(sorted(offered)) or "none"
            yield Finding(f"service {name}", False, f"The server has no such service; it has {there}.")
        elif card.state == "revoked":
            yield Finding(f"service {name}", False, "The server's operator has revoked it.")
        elif card.joined and not card.active:
            yield Finding(f"service {name}", False, "This client is not active in it: idle for long, or deactivated.")
        else:
            yield Finding(
                f"service {name}", True, "paused now, so no work comes" if card.state == "paused" else "active"
            )


async def _cards(session: Session) -> list[ServiceCard]:
    """Ask for what the services want; none if the server does not say."""
    reading = asyncio.ensure_future(session.run(lambda push: None))
    try:
        return (await session.request(Services(), OfferedServices)).services
    except CoordinatorError:
        return []
    finally:
        reading.cancel()
        await asyncio.wait([reading])


def _profiles(cards: list[ServiceCard], wanted: list[str], profiles: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Hold the profiles against what the services want."""
    schemas = {card.service: card.profile_schema for card in cards}
    for name in wanted:
        if name not in schemas:
            continue
        fault = fault_of_profile(schemas[name], profiles.get(name, {}))
        if fault is None:
            yield Finding(f"profile for {name}", True, "as the service wants it")
        else:
            given = "does not fit" if name in profiles else "is missing"
            yield Finding(f"profile for {name}", False, f"--profile {given}: {fault}.")


def _clock(whose: str, date: str) -> Finding:
    """Compare this machine's clock with the date of an answer."""
    subject = f"clock, by {whose}"
    try:
        ahead = time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return Finding(subject, True, f"{whose} tells no time")
    if abs(ahead) <= MAX_CLOCK_DIFFERENCE:
        return Finding(subject, True, "right")
    direction = "ahead of" if ahead > 0 else "behind"
    return Finding(
        subject,
        False,
        f"This machine's clock is {duration(abs(ahead))} {direction} that of {whose}: set one of them right.",
    )
