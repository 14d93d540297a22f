"""The exit codes of a command: 0 done, 1 refused, 2 wrong usage, 3 server or database not reached."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer

from coordinator.errors import ConfigError, CoordinatorError, Refused, ServerUnreachable, Unavailable
from coordinator.printable import printable_lines

P = ParamSpec("P")
R = TypeVar("R")

EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHABLE = 1, 2, 3


def fail(message: str, code: int) -> NoReturn:
    """End with one line on standard error."""
    typer.echo(f"coordinator: {printable_lines(message)}", err=True)
    raise typer.Exit(code)


@contextlib.contextmanager
def only_where_the_server_runs() -> Iterator[None]:
    """Import the server's modules; on a system that lacks what they need, a sentence says so.

    Raises:
        ConfigError: this is such a system.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"The server runs on Linux and macOS, and here is no {missing.name}; "
            "the volunteers' daemon, coordinator work, runs everywhere."
        ) from missing


def with_exit_codes(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that an error of this program's tree ends it with one sentence and the right code."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConfigError as failure:
            fail(str(failure), EXIT_USAGE)
        except (ServerUnreachable, Unavailable) as failure:
            fail(str(failure), EXIT_UNREACHABLE)
        except Refused as failure:
            fail(f"{failure.message} ({failure.code}){_detail(failure.detail)}", EXIT_REFUSED)
        except CoordinatorError as failure:
            fail(str(failure), EXIT_REFUSED)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return guarded


def _detail(detail: dict[str, Any]) -> str:
    return "".join(f"\n  {name}: {value}" for name, value in detail.items())
