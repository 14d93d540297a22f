"""Checkers, the functions that do the work on one item.

A checker is an async function `check(item, profile) -> result`.  `item` has `item` (an integer), `key` and
the item's attributes; `profile` is what the volunteer joined the service with; the result is a dictionary in
the service's shape, without `item`.  A checker may have methods: `close`, async or
not, is called at the end; `probe(profile)`, async, asks the outside API for nobody's item, and returns a sentence; and
`unanswered()` returns the result for an item over which the outside API fails, while it answers for others.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from coordinator.errors import ConfigError, CoordinatorError
from coordinator.wording import duration

Checker = Callable[[dict[str, Any], dict[str, Any]], Awaitable[dict[str, Any]]]


class CheckFailed(CoordinatorError):
    """Raised when one item cannot be checked; it goes back to the server, the others go on."""


class NoResultInTime(CheckFailed):
    """Raised when a checker has taken too long over one item."""


class ProgramDied(CheckFailed):
    """Raised when a checker program has died over one item."""


class UpstreamLimited(CoordinatorError):
    """Raised when the outside API takes nothing for `retry_after` seconds; the items are checked after that."""

    def __init__(self, retry_after: float, why: str = "its limit is reached") -> None:
        super().__init__(f"The outside API takes nothing for {duration(retry_after)}: {why}.")
        self.retry_after = retry_after
        self.why = why


class UpstreamOut(CoordinatorError):
    """Raised when the outside API, or the way to it, does not work; nobody knows for how long.

    The daemon tries again with growing pauses, the first of which lasts `at_least` seconds.
    """

    def __init__(self, why: str, at_least: float = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.at_least = at_least


def load_checker(name: str, options: dict[str, str] | None = None) -> Checker:
    """Load the checker that `MODULE:FUNCTION` names; modules in the current directory can be imported.

    FUNCTION is an async checker, or a plain function that makes one out of `options`, its keyword arguments.

    Raises:
        ConfigError: nothing has that name, it is not a checker, or it does not take these options.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(f"A checker is named MODULE:FUNCTION, which {name!r} is not.")

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)

    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as failure:
        raise ConfigError(f"The checker {name!r} cannot be imported: {failure}.") from failure
    except AttributeError as failure:
        raise ConfigError(f"There is no {attribute!r} in the module {module_name!r}.") from failure

    if is_async(found) and not inspect.isclass(found):
        if options:
            raise ConfigError(f"The checker {name!r} takes no options.")
        return cast(Checker, found)  # its shape shows when it is called

    if not callable(found):
        raise ConfigError(f"{name!r} is not a function.")
    try:
        inspect.signature(found).bind(**(options or {}))
    except TypeError as failure:
        if _takes_an_item(found):
            raise ConfigError(
                f"The checker {name!r} is a plain function; it must be async: async def {attribute}(item, profile)."
            ) from failure
        raise ConfigError(f"The checker {name!r} and its options do not fit: {failure}.") from failure

    made: Any = found(**(options or {}))
    if not is_async(made):
        raise ConfigError(f"{name!r} is neither an async function nor makes one.")
    return cast(Checker, made)


async def close_checker(checker: Checker) -> None:
    """Call the checker's `close` if it has one, which may be async."""
    close = getattr(checker, "close", None)
    if callable(close):
        closing = close()
        if inspect.isawaitable(closing):
            await closing


def is_async(function: object) -> bool:
    """Tell whether the function's call must be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is wanted
    )


def _takes_an_item(function: Callable[..., object]) -> bool:
    """Tell whether a function takes what a checker takes, by the names of its arguments or by their number."""
    wanted = [
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    return "item" in wanted or (len(wanted) == 2 and not inspect.isclass(function))
