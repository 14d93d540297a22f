"""A small model of capacity: from the cost of each step to the nodes, statements and cores that many clients need.

The day is a balance of items, minute by minute; what one node does at its peak is a queue of asks and one of submits
that are served in batches.  `tests/bench/test_capacity.py` holds the model against a real node with real clients.

Roughly: the database answers as fast under load as alone; connections spread evenly over the nodes; there is one
service; items are added evenly over the day, and none is deleted or prioritised; what a client gives back or loses is
not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

from coordinator.client.library import FLUSH_EVERY
from coordinator.client.x_api import RATE_LIMIT_WINDOW, REQUESTS_PER_WINDOW
from coordinator.flow.bucket_builder import pool_target
from coordinator.flow.commits import COMMITS_AT_ONCE, MOST_SUBMITS_A_COMMIT
from coordinator.flow.dispatcher import MOST_DEMANDS_A_CLAIM
from coordinator.model import ServiceSettings
from tests.bench.steps import StepCost, Steps, Timings

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0

SAMPLE = 60.0
"""Seconds of arrivals for which a queue is played."""

BUSY = 0.6
"""Share of a core that is planned to be used at the peak."""

SERVICE = ServiceSettings()

SESSIONS_PER_NODE = 10_000
"""Half of what a node takes by default (`max_sessions`)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A day; all but the outside API's limit is assumed, not measured.  Shares are parts of one."""

    clients: int = 100_000
    hours: float = 24.0
    """How long, from midnight on."""
    load: float = 0.9
    """Items that are added, against what the clients can check in a day."""
    online: float = 0.3
    """Share of the clients that are connected, on average over the day."""
    swing: float = 0.25
    """By this share of the average more are connected at 21:00, and fewer at 9:00."""
    speed: float = 2.5
    """Items that a client checks in a second, until the outside API's limit is reached."""
    session: float = 3 * HOUR
    """Seconds that a session lasts on average, until its client leaves or its connection breaks."""

    def connected(self, at: float) -> float:
        """How many clients are connected at that second of the day."""
        evening = math.cos(2 * math.pi * (at - 21 * HOUR) / DAY)
        return self.clients * self.online * (1 + self.swing * evening)

    @property
    def added(self) -> float:
        """Items that are added in a second."""
        return self.load * self.clients * self.online * REQUESTS_PER_WINDOW / RATE_LIMIT_WINDOW

    @property
    def submits_per_bucket(self) -> int:
        """In how many parts a client submits a bucket: no result waits longer than the client's library lets it."""
        return math.ceil(SERVICE.bucket_size / self.speed / FLUSH_EVERY)


@dataclass(frozen=True, slots=True)
class Minute:
    """A minute of the day: items a second, items that wait, and seconds until what is added now is checked."""

    connected: float
    settled: float
    waiting: float
    wait: float
    idle: float
    """Share of the clients for which there is no work."""


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """Load of one node in a second; an ask is for one bucket."""

    asks: float
    submits: float
    sessions: float = 0.0
    made: float = 0.0
    """Buckets that are made of waiting items."""
    added: float = 0.0
    """Items that are added."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Cost of one node in a second, by step, and the seconds from each ask to its bucket."""

    steps: dict[str, StepCost]
    asks: list[float]

    @property
    def total(self) -> StepCost:
        return sum(self.steps.values(), StepCost())


def day_of(scenario: Scenario) -> list[Minute]:
    """The day, minute by minute: what is added waits until the clients that are connected have checked it."""
    minutes, waiting = [], 0.0
    for number in range(int(scenario.hours * HOUR / MINUTE)):
        connected = scenario.connected(number * MINUTE)
        most = connected * REQUESTS_PER_WINDOW / RATE_LIMIT_WINDOW

        settled = min(most, scenario.added + waiting / MINUTE)
        waiting = max(0.0, waiting + (scenario.added - settled) * MINUTE)
        minutes.append(Minute(connected, settled, waiting, waiting / most, 1 - settled / most))
    return minutes


def serve(
    arrivals: Sequence[float], most: int, workers: int, seconds: Callable[[int], float]
) -> tuple[int, list[float]]:
    """Serve what arrives at these times in batches: a free worker takes all that waits, up to `most`.

    `seconds` tells how long a batch of a size takes.  Returns the number of batches, and how long each arrival took.
    """
    free_at, batches, took = [0.0] * workers, 0, list[float]()
    start = 0
    while start < len(arrivals):
        begins = max(heappop(free_at), arrivals[start])
        end = start + 1
        while end < len(arrivals) and end - start < most and arrivals[end] <= begins:
            end += 1

        ends = begins + seconds(end - start)
        took += [ends - arrived for arrived in arrivals[start:end]]
        heappush(free_at, ends)
        batches += 1
        start = end
    return batches, took


def forecast(load: NodeLoad, steps: Steps, timings: Timings) -> Forecast:
    """Tell what one node does in a second under that load, as `flow` does it: one claim at a time, two commits."""
    chance = Random(1)
    asks, submits = _arrivals(load.asks, chance), _arrivals(load.submits, chance)
    claims, asked = serve(asks, MOST_DEMANDS_A_CLAIM, 1, lambda size: timings.claim + (size - 1) * timings.claim_more)
    commits_made, _ = serve(
        submits, MOST_SUBMITS_A_COMMIT, COMMITS_AT_ONCE, lambda size: timings.submit + (size - 1) * timings.submit_more
    )

    return Forecast(
        {
            "claim": steps.claim * (claims / SAMPLE),
            "bucket": steps.bucket * load.asks,
            "submit": steps.submit * (commits_made / SAMPLE),
            "make": steps.make * load.made,
            "add": steps.add * (load.added / 1000),
            "session": steps.session * load.sessions,
            "second": steps.second,
        },
        [seconds + timings.ask - timings.claim for seconds in asked],
    )


def _arrivals(rate: float, chance: Random) -> list[float]:
    """Times at which something arrives, independently of one another, within a sample."""
    return sorted(chance.random() * SAMPLE for _ in range(round(rate * SAMPLE)))


@dataclass(frozen=True, slots=True)
class Needs:
    """Needs of the clients of a scenario at their peak, and how long asks take then."""

    peak: Minute
    nodes: int
    node: Forecast
    pool: int
    """Ready buckets that are kept."""

    @property
    def steps(self) -> dict[str, StepCost]:
        """Cost of all nodes in a second, by step."""
        return {name: cost * self.nodes for name, cost in self.node.steps.items()}


def needs_of(scenario: Scenario, steps: Steps, timings: Timings) -> Needs:
    """Find how many nodes carry the busiest minute of the day with a core each, and what they do in it."""
    peak = max(day_of(scenario), key=lambda minute: minute.settled)
    nodes = math.ceil(peak.connected / SESSIONS_PER_NODE)
    while (node := forecast(_share(scenario, peak, nodes), steps, timings)).total.node_ms > BUSY * 1000:
        nodes += 1
    return Needs(peak, nodes, node, pool_target(scenario.clients, SERVICE))


def _share(scenario: Scenario, minute: Minute, nodes: int) -> NodeLoad:
    buckets = minute.settled / SERVICE.bucket_size / nodes
    return NodeLoad(
        asks=buckets,
        submits=buckets * scenario.submits_per_bucket,
        sessions=minute.connected / scenario.session / nodes,
        made=buckets,
        added=scenario.added / nodes,
    )
