"""The progress of the demo's work, and how it is shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.cli.tables import NOT_KNOWN
from coordinator.wording import counted

_SPEED_POLLS = 10
"""Polls over which the speed is computed."""

_LEAST_SECONDS = 2.0
"""Seconds of polls from which on a speed is known."""


@dataclass(slots=True)
class ServiceProgress:
    """The numbers of one service at the last poll."""

    name: str
    waiting: int = 0
    ready: int = 0
    claimed: int = 0
    dead: int = 0
    settled: int = 0
    quarantined: int = 0
    polls: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SPEED_POLLS))

    @property
    def open(self) -> int:
        """Items that are neither settled nor quarantined."""
        return self.waiting + self.ready + self.claimed + self.dead

    @property
    def speed(self) -> float:
        """Items settled per second, over the last polls; 0 until there are polls of some seconds."""
        if len(self.polls) < 2:
            return 0.0
        (began, before), (at, now) = self.polls[0], self.polls[-1]
        return (now - before) / (at - began) if at - began >= _LEAST_SECONDS else 0.0


class DemoProgress:
    """The work of some services, each on the same `total` items, as the answers to `stats` report it."""

    def __init__(self, services: list[str], total: int) -> None:
        self.total = total
        self.services = {name: ServiceProgress(name) for name in services}
        self.began: float | None = None
        self.at = 0.0

    def take(self, stats: Mapping[str, Any], now: float) -> None:
        """Take one answer to `stats`; `now` in seconds of a monotonic clock."""
        self.began = now if self.began is None else self.began
        self.at = now
        for row in stats["services"]:
            if (service := self.services.get(row["service"])) is not None:
                for name in ("waiting", "ready", "claimed", "dead", "settled", "quarantined"):
                    setattr(service, name, row.get(name) or 0)
                service.polls.append((now, service.settled))

    @property
    def done(self) -> bool:
        """Tell whether nothing is left that a client could settle."""
        return all(
            not service.open and service.settled + service.quarantined >= self.total
            for service in self.services.values()
        )

    @property
    def share(self) -> float:
        """The share of the work that is done, from 0 to 1."""
        done = sum(service.settled + service.quarantined for service in self.services.values())
        return done / max(1, self.total * len(self.services))

    @property
    def seconds(self) -> float:
        """Seconds since the first answer."""
        return self.at - (self.at if self.began is None else self.began)


def render_progress(progress: DemoProgress, clients: int) -> RenderableType:
    """Draw the progress of a demo that runs."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("service", "", "settled", "waiting", "ready", "claimed", "items/s", "ETA"):
        table.add_column(name, justify="left" if name in ("service", "") else "right")

    for service in progress.services.values():
        rest = max(0, progress.total - service.settled - service.quarantined)
        table.add_row(
            service.name,
            ProgressBar(total=progress.total, completed=progress.total - rest, width=24),
            f"{service.settled:,}",
            f"{service.waiting:,}",
            f"{service.ready:,}",
            f"{service.claimed + service.dead:,}",
            f"{service.speed:,.0f}",
            "done" if not rest else f"{rest / service.speed:,.0f} s" if service.speed else NOT_KNOWN,
        )

    return Group(table, Text(f"{counted(clients, 'client')}, {progress.seconds:.0f} s"))


def render_summary(progress: DemoProgress, requests: int) -> RenderableType:
    """Draw the result of a demo that is done."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("service", "settled", "quarantined"):
        table.add_column(name, justify="left" if name == "service" else "right")
    for service in progress.services.values():
        table.add_row(service.name, f"{service.settled:,}", f"{service.quarantined:,}")
    settled = sum(service.settled for service in progress.services.values())
    told = f"{settled:,} items settled in {progress.seconds:.1f} s, with {requests:,} requests to the stand-in"
    return Group(table, Text(told))
