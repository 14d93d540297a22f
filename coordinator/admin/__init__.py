"""What admins and operators ask for: a module for each noun of the wire, a method for each verb.

The messages are in `coordinator.wire.admin`, in modules of the same names.  A new request needs its type, the type of
its answer and their line in `ANSWERS` there, its method and its line in `steps` here, and perhaps a statement in
`coordinator.store`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from coordinator.wire.admin import ANSWERS, AdminHello
from coordinator.wire.frames import Answer, Request

Steps = Mapping[type[Request], Callable[[Any], Awaitable[Answer]]]
"""Each request with the function that carries it out."""


class Noun(Protocol):
    """The requests about one kind of thing."""

    def steps(self) -> Steps:
        """Each of its requests with the method that carries it out."""
        ...


def join_steps(*nouns: Noun) -> Steps:
    """Join the requests of all nouns into one table; `hello` is the channel's own."""
    steps = {request: step for noun in nouns for request, step in noun.steps().items()}
    assert steps.keys() == ANSWERS.keys() - {AdminHello}
    return steps
