"""What is played: who comes when, how fast they are, what goes wrong, and what is added."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from coordinator.client.x_api import RATE_LIMIT_WINDOW, REQUESTS_PER_WINDOW
from coordinator.config import Settings
from coordinator.model import ServiceSettings

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One day.  Times are seconds, shares are parts of one; all but the outside API's limit is assumed, not measured.

    Of the clients a part runs all day; each of the others comes `visits` times a day on average, most of them in the
    evening, for a time whose median is `visit`.  `load` is what is added, against what all clients can do in the
    day.
    """

    clients: int = 100_000
    nodes: int = 5
    hours: float = 24.0
    warm_up: float = 3600.0
    """Played before the first hour that counts."""
    seed: int = 1

    all_day: float = 0.15
    visits: float = 1.3
    visit: float = 3 * 3600.0
    evening: float = 20 * 3600.0
    swing: float = 0.6
    """Arrivals an hour vary by this share around their mean; the most are in the `evening`."""

    requests: int = REQUESTS_PER_WINDOW
    window: float = RATE_LIMIT_WINDOW
    """The outside API takes so many requests of a client in so many seconds."""
    speed: float = 5.0
    """Median of the items that a client checks in a second, while the API takes them."""

    cuts_an_hour: float = 0.05
    """Connections that break, for each hour of a session; half of them silently, noticed by the ping."""
    cut_for: float = 20.0
    """Median of how long."""
    rude: float = 0.3
    """Share of the visits that end without a word."""
    give_back: float = 0.01
    """Share of the buckets that are given back."""
    hang: float = 0.0002
    """Share of the buckets at which a client stops to work, and stays."""
    crash_at: float | None = 20.5 * 3600.0
    """When one node goes away with all its sessions, for good."""

    load: float = 0.9
    urgent: float = 0.02
    """Share of what is added with priority 0."""
    low: float = 0.08
    """Share of what is added with priority 150."""
    backlog: float = 3600.0
    """What waits at the start, in seconds' worth of what is added."""
    recollect_window: float = Settings.model_fields["recollect_window"].default
    settings: ServiceSettings = field(default_factory=ServiceSettings)

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.clients < 1 or self.hours <= 0:
            raise ValueError("there is at least one node and one client, and some time to play")

    def visits_of(self, chance: Random, until: float) -> list[tuple[float, float]]:
        """When one client comes and goes, from long before the start on."""
        if chance.random() < self.all_day:
            return [(-self.warm_up, until)]
        found: list[tuple[float, float]] = []
        at = -DAY / 2 - self.warm_up
        most = self.visits / DAY * (1 + self.swing)
        while (at := at + chance.expovariate(most)) < until:
            rate = 1 + self.swing * math.cos(2 * math.pi * (at - self.evening) / DAY)
            if chance.random() * (1 + self.swing) > rate:
                continue
            gone = at + chance.lognormvariate(math.log(self.visit), 0.8)
            if gone > -self.warm_up:
                found.append((max(at, -self.warm_up), gone))
            at = gone
        return found
