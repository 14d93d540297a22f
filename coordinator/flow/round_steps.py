"""The steps of a part that works in rounds: one that fails stops none of the others, and is left out for a while.

What is refused once is refused again as a rule, such as a statement that an extension of Postgres cannot carry out:
the rest of the round has to go on all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from time import monotonic

from coordinator.errors import Unavailable

FIRST_OMISSION = 0.5
"""Seconds for which a step that failed is left out; doubles with each failure in a row."""

LONGEST_OMISSION = 60.0

Step = Callable[[], Awaitable[object]]


class RoundSteps:
    """Runs the steps of rounds, each by its name."""

    def __init__(self) -> None:
        self._omitted: dict[str, tuple[float, float]] = {}
        """Until when a step is left out that failed, and for how long if it fails again."""

    async def run(self, steps: Iterable[tuple[str, Step]]) -> None:
        """Run steps in order, each whether or not those before it failed.

        Raises:
            Unavailable: the database was away for at least one of them, and nothing else went wrong.
            Exception: what one step raised, with a note of its name.
            ExceptionGroup: several steps failed.
        """
        faults: list[Exception] = []
        away: Unavailable | None = None

        for name, step in steps:
            until, omission = self._omitted.get(name, (0.0, FIRST_OMISSION))
            if monotonic() < until:
                continue
            try:
                await step()
            except Unavailable as failure:
                away = failure
            except Exception as fault:
                fault.add_note(f"in the step: {name}")
                faults.append(fault)
                self._omitted[name] = monotonic() + omission, min(2 * omission, LONGEST_OMISSION)
            else:
                self._omitted.pop(name, None)

        if len(faults) > 1:
            raise ExceptionGroup("several steps failed", faults)
        if faults:
            raise faults[0]
        if away is not None:
            raise away
