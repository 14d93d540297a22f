"""`coordinator` whose observing is switched off, and on again, by SIGUSR1.

Off, no statement is counted, no event kept, and nothing recorded of the past.  What clients did is counted still, since
the rules of health go by it.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import asyncpg

from coordinator.cli import main
from coordinator.observe.events import Events
from coordinator.stats.recorder import Recorder
from coordinator.store.statement_stats import CountedConnection


async def _written(_: Recorder) -> None:
    return


OFF: dict[type, dict[str, Any]] = {
    CountedConnection: {
        name: getattr(asyncpg.Connection, name)
        for name in ("fetch", "fetchrow", "fetchval", "execute", "copy_records_to_table", "copy_to_table")
    },
    Events: {"emit": lambda *_, **__: None},
    Recorder: {"write": _written, "_tidy": _written},
}
ON: dict[type, dict[str, Any]] = {which: {name: vars(which)[name] for name in names} for which, names in OFF.items()}


class Switch:
    """The switch between observing and not."""

    def __init__(self) -> None:
        self.on = True

    def turn(self, signal_number: int, frame: FrameType | None) -> None:
        self.on = not self.on
        for which, attributes in (ON if self.on else OFF).items():
            for name, value in attributes.items():
                setattr(which, name, value)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, Switch().turn)
    main()
