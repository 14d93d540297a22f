"""The day itself: who comes when, what is added, and what is seen of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from coordinator.config import Settings
from coordinator.flow.bucket_builder import head_start
from coordinator.store.claims import CRASHED
from tests.bench.simulation.clock import Clock
from tests.bench.simulation.costs import Costs
from tests.bench.simulation.ledger import BIN, Spread
from tests.bench.simulation.node import Node
from tests.bench.simulation.queue import Batch
from tests.bench.simulation.scenario import Scenario
from tests.bench.simulation.store import Store
from tests.bench.simulation.volunteer import Volunteer

_LEASE = Settings.model_fields["node_lease"].default

NORMAL, URGENT, LOW = 100, 0, 150
LOOK = 60.0
"""Seconds between samples of the pool."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood at one moment: ages in seconds, by priority."""

    at: float
    online: int
    ready: int
    held: int
    waiting: int
    oldest: dict[int, float]


class Day:
    """A scenario, played."""

    def __init__(self, scenario: Scenario, costs: Costs, store: Callable[..., Store] = Store) -> None:
        self.scenario = scenario
        self.costs = costs
        self.chance = Random(scenario.seed)
        self.clock = Clock(-scenario.warm_up)
        self.store = store(self.clock, scenario.settings, self.chance, scenario.recollect_window)
        self.ask_to_bucket = Spread()
        self.samples: list[Sample] = []
        self.in_vain = 0
        """Items that were checked and do not count, since their claim had ended."""
        self.sessions = 0
        self.added_per_second = 0.0
        self._owed: defaultdict[int, float] = defaultdict(float)
        self.volunteers: list[Volunteer] = []
        self.nodes = [Node(self, number) for number in range(scenario.nodes)]
        self._crashed: Node | None = None

    def play(self) -> None:
        """From the warm-up to the end."""
        scenario, clock = self.scenario, self.clock
        end = scenario.hours * 3600
        online = self._arrivals(end)
        self.added_per_second = scenario.load * online * scenario.requests / scenario.window
        backlog = int(self.added_per_second * scenario.backlog)
        if backlog:
            # Added over a time as long as it is worth.
            for n in range(10):
                since = clock.now - scenario.backlog * (1 - n / 10)
                self.store.waiting.add(Batch(since, since, NORMAL, backlog // 10))
        clock.at(0.0, self._begin)
        clock.at(clock.now, self._add)
        if scenario.crash_at is not None and scenario.nodes > 1:
            clock.at(scenario.crash_at, self._crash)
        clock.run(end)

    def _arrivals(self, end: float) -> float:
        """Plan all visits; returns how many clients are there on average."""
        scenario, present = self.scenario, 0.0
        for number in range(scenario.clients):
            volunteer = Volunteer(self, self.store.join(f"c{number}"))
            self.volunteers.append(volunteer)
            for came, gone in scenario.visits_of(self.chance, end + 1):
                # Those who are there at the start come one after the other, as after a restart.
                begins = came if came > -scenario.warm_up else came + self.chance.random() * scenario.warm_up / 2
                if begins < gone:
                    self.clock.at(begins, volunteer.come, gone)
                    present += min(gone, end) - begins
        return present / (end + scenario.warm_up)

    def _begin(self) -> None:
        """The warm-up is over: from here on it counts."""
        self.store.ledger.bins.clear()
        self.store.settled_after.clear()
        self.store.overtaken = 0.0
        self.store.sizes = [0, 0]
        self.ask_to_bucket = Spread()
        self.in_vain = self.sessions = 0
        self._next_bin()
        self._look()

    def _next_bin(self) -> None:
        self.store.ledger.next_bin()
        self.clock.after(BIN, self._next_bin)

    # What the others ask of the day

    def some_node(self) -> Node:
        """Where a load balancer leads a new connection."""
        return self.chance.choice([node for node in self.nodes if node.alive])

    def next_session(self) -> int:
        """A number for a new session."""
        self.sessions += 1
        return self.chance.getrandbits(64) << 64 | self.sessions

    def asked(self, seconds: float) -> None:
        """An ask was answered with a bucket."""
        self.ask_to_bucket.add(seconds)

    def checked_in_vain(self, items: int) -> None:
        """Somebody else has them now."""
        self.in_vain += items

    # What happens by itself

    def _add(self) -> None:
        """One second's items."""
        scenario = self.scenario
        shares = {URGENT: scenario.urgent, LOW: scenario.low, NORMAL: 1 - scenario.urgent - scenario.low}
        for priority, share in shares.items():
            self._owed[priority] += self.added_per_second * share * 2 * self.chance.random()
            count = int(self._owed[priority])
            self._owed[priority] -= count
            if count:
                self.store.add(priority, count)
                self.some_node().work()
        self.clock.after(1.0, self._add)

    def _look(self) -> None:
        store, now = self.store, self.clock.now
        oldest = store.waiting.oldest()
        for priority, since in store.ready.oldest().items():
            oldest[priority] = min(since, oldest.get(priority, since))
        self.samples.append(
            Sample(
                now,
                sum(len(node.sessions) for node in self.nodes if node.alive),
                store.ready.size,
                store.held,
                store.waiting.items,
                {priority: now - since for priority, since in sorted(oldest.items())},
            )
        )
        self.clock.after(LOOK, self._look)

    def _crash(self) -> None:
        """One node is gone at once, and never comes back."""
        node = self.nodes[0]
        node.alive = False
        self.clock.after(_LEASE, self._lease_over, node)
        for session in list(node.sessions):
            session.alive = False
            if session.volunteer.session is session:
                session.volunteer.crashed()

    def _lease_over(self, node: Node) -> None:
        self._crashed = node

    def free_crashed(self, by: Node) -> None:
        """What the crashed node's sessions still hold goes back; the first node that looks does it."""
        node, self._crashed = self._crashed, None
        if node is None:
            return
        freed = 0
        for session in list(node.sessions):
            volunteer = session.volunteer
            freed += self.store.release_session(session, volunteer.member, CRASHED, volunteer.delivered(session))
        if freed:
            by.work()


def bound(scenario: Scenario) -> float:
    """Seconds: nothing added that much later than an item's rank is ever handed out before it, runs aside."""
    return head_start(URGENT, scenario.settings.max_head_start)
