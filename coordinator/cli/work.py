"""`coordinator work`: the daemon of a volunteer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from coordinator.cli.access import DEFAULT_SERVER, Authority, find_server
from coordinator.client.checker_program import CheckerProgram
from coordinator.client.checkers import Checker, close_checker, load_checker
from coordinator.client.daemon import Daemon
from coordinator.client.library import Client
from coordinator.client.service_work import ITEM_TIMEOUT, ServiceWork
from coordinator.errors import ConfigError, CoordinatorError, Refused
from coordinator.printable import PrintableFormatter, printable

log = logging.getLogger("coordinator.client")

_profile_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])

ServiceOption = Annotated[
    list[str],
    typer.Option("--service", help="A service to work for, e.g. dm_check. Repeat it for several: they take turns."),
]
ServerUrlOption = Annotated[
    str | None,
    typer.Option(
        help="Where the server is: ws://, wss://, http:// or https://, host and port. Default: COORDINATOR_SERVER, "
        f"else the address that a server on this machine has left in its usual data folder, else {DEFAULT_SERVER}.",
        metavar="URL",
    ),
]
CheckerOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[SERVICE=]MODULE:FUNCTION",
        help="An async function check(item, profile) that returns the result, or a plain function "
        "that makes one; the current directory can be imported from. "
        "Built in: coordinator.client.x_api:dm_check, "
        ":follower_check, :following_check. With SERVICE= it is for that service alone.",
    ),
]
ExecOption = Annotated[
    str | None,
    typer.Option(
        "--exec",
        metavar="COMMAND",
        help="A program instead, for services without a checker of their own. It reads items as "
        'JSON lines, {"item": 7, "key": "ada", "profile": {…}}, and writes results so, {"item": 7, …}.',
    ),
]
CheckerSettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the checker, e.g. base_url=http://127.0.0.1:9000. VALUE env:VAR takes the "
        "environment variable VAR, so that a token stays out of the process list: token=env:X_TOKEN.",
    ),
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[SERVICE=]JSON",
        help="""What to join with, in the service's shape, e.g. '{"source": "my_screen_name"}'.""",
    ),
]
ClientIdOption = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Which identity to use; made and kept on its first use. Default: one of this user's.",
    ),
]
ConcurrencyOption = Annotated[int, typer.Option(min=1, max=1000, help="Items in check at once.")]
ItemTimeoutOption = Annotated[
    float,
    typer.Option(
        min=1.0,
        metavar="SECONDS",
        help="How long one item may take; then it has failed, and a program is ended and started again.",
    ),
]
ScreenNameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The name to register with. Default: the client id.")
]
EnrolmentTokenOption = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        envvar="COORDINATOR_ENROLMENT_TOKEN",
        help="Needed where registration is not open; the server's operator has it.",
    ),
]
ClientDataOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where identities and unsent results are kept. Default: a per-user folder."),
]
PlaintextOption = Annotated[
    bool, typer.Option("--plaintext", help="Send the secret without TLS beyond this machine, on a network of your own.")
]
CheckOption = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Look at server, identity, checker, API token, proxy and clock, say what is wrong, and ask for no work.",
    ),
]
LogLevelOption = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")]


def work(
    service: ServiceOption,
    server: ServerUrlOption = None,
    ca: Authority = None,
    checker: CheckerOption = None,
    command: ExecOption = None,
    option: CheckerSettingOption = None,
    profile: ProfileOption = None,
    client_id: ClientIdOption = None,
    concurrency: ConcurrencyOption = 4,
    item_timeout: ItemTimeoutOption = ITEM_TIMEOUT,
    screen_name: ScreenNameOption = None,
    enrolment_token: EnrolmentTokenOption = None,
    data: ClientDataOption = None,
    plaintext: PlaintextOption = False,
    log_level: LogLevelOption = "info",
    check: CheckOption = False,
) -> None:
    """Work for a server: take items, check them, send the results, until Ctrl-C.

    The first Ctrl-C (or SIGTERM) finishes what is in check and gives the rest back; the second ends at once.
    Results that the server has not confirmed are kept on disk and sent at the next start.

    Example: coordinator work --service dm_check --checker coordinator.client.x_api:dm_check
    --option token=env:X_TOKEN --profile '{"source": "my_screen_name"}'
    """
    try:
        _log_at(log_level)
        access = find_server(server, None, ca)
        services = list(dict.fromkeys(service))
        program = CheckerProgram(command, item_timeout=item_timeout) if command is not None else None
        profiles = {name: _profile(text) for name, text in _value_of_each(profile, services, "--profile").items()}
        if check:
            from coordinator.cli.work_check import Wanted, check_work  # with modules that the work itself does not need

            wanted = Wanted(access, plaintext, data, client_id, services, profiles, program)
            good = check_work(wanted, partial(_checkers, services, checker, option, program))
            raise typer.Exit(0 if good else 1)

        checkers = _checkers(services, checker, option, program)
        watched = _value_of_each(checker, services, "--checker")  # a program is watched by its runner
        works = [
            ServiceWork(name, checkers[name], profiles.get(name), item_timeout if name in watched else None)
            for name in services
        ]
        client = Client(access.address, client_id=client_id, data=data, plaintext=plaintext, authority=access.authority)
    except ConfigError as failure:
        typer.echo(printable(f"coordinator work: {failure}"), err=True)
        raise typer.Exit(2) from None

    try:
        asyncio.run(_run(client, works, program, concurrency, screen_name, enrolment_token))
    except CoordinatorError as failure:
        typer.echo(printable(f"coordinator work: {failure}{_what_to_do(failure)}"), err=True)
        raise typer.Exit(1) from None


async def _run(
    client: Client,
    works: list[ServiceWork],
    program: CheckerProgram | None,
    concurrency: int,
    screen_name: str | None,
    enrolment_token: str | None,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if program is not None:
            await stack.enter_async_context(program)

        daemon = Daemon(
            client,
            works,
            concurrency=concurrency,
            screen_name=screen_name,
            enrolment_token=enrolment_token,
        )

        for service_work in works:
            stack.push_async_callback(close_checker, service_work.check)
        _stop_on_signals(daemon)
        await daemon.run()


def _what_to_do(failure: CoordinatorError) -> str:
    """Return the option that mends a refusal of the server, where there is one."""
    if not isinstance(failure, Refused):
        return ""
    if failure.detail.get("path") == "$.enrolment_token":
        return " Ask the server's operator for one, and give it with --enrolment-token."
    return ""


def _log_at(name: str) -> None:
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ConfigError(f"There is no log level {name!r}.")
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(level)


def _stop_on_signals(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        log.warning("stopping; once more ends at once")
        daemon.stop()
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # the second one kills; unsent results are on disk

    for number in signals:
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


def _checkers(
    services: list[str], named: list[str] | None, options: list[str] | None, program: CheckerProgram | None
) -> dict[str, Checker]:
    names = _value_of_each(named, services, "--checker")
    if program is not None and set(names) >= set(services):
        raise ConfigError("Each service has one checker: give --checker or --exec.")
    settings = _options(options)
    loaded = {name: load_checker(name, settings) for name in set(names.values())}
    checkers = {service: loaded[name] for service, name in names.items()}
    for service in services:
        if service not in checkers:
            if program is None:
                raise ConfigError(f"The service {service} has no checker; give --checker or --exec.")
            checkers[service] = program.checker(service)
    return checkers


def _value_of_each(values: list[str] | None, services: list[str], flag: str) -> dict[str, str]:
    """Map each service to its value of an option: `SERVICE=VALUE`, or the one `VALUE` for all others."""
    found: dict[str, str] = {}
    rest: str | None = None
    for value in values or ():
        service, equals, own = value.partition("=")
        if equals and service in services:
            found[service] = own
        elif rest is None:
            rest = value
        else:
            raise ConfigError(f"{flag} is given twice without the name of a --service: {value!r}.")
    if rest is not None:
        found = dict.fromkeys(services, rest) | found
    return found


def _options(values: list[str] | None) -> dict[str, str]:
    """Read the options of a checker, `NAME=VALUE` or `NAME=env:VARIABLE`."""
    options = {}
    for value in values or ():
        name, equals, setting = value.partition("=")
        if not equals or not name:
            raise ConfigError(f"A checker's option is NAME=VALUE, which {value!r} is not.")
        if setting.startswith("env:"):
            variable = setting.removeprefix("env:")
            if variable not in os.environ:
                raise ConfigError(f"There is no environment variable {variable} for the option {name}.")
            setting = os.environ[variable]
        options[name] = setting
    return options


def _profile(text: str) -> dict[str, Any]:
    try:
        return _profile_decoder.decode(text)
    except msgspec.MsgspecError as failure:
        raise ConfigError(f"A profile is a JSON object, which {text!r} is not: {failure}.") from None
