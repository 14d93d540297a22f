"""What statements cost, and what a day of them needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.simulation.ledger import Work


@dataclass(frozen=True, slots=True)
class Costs:
    """Core-milliseconds of the database for each statement, transaction, or thing in it; and what a node carries.

    A statement also takes that long, and `commit_ms` more if it writes: the database is taken to be less than busy.
    The defaults were measured by `python -m tests.bench.simulate --measure`, the node's by `python -m tests.bench`, on
    two cores of a small virtual machine.
    """

    claim_ms: float = field(default=0.57, metadata={"help": "a claim statement"})
    claim_ms_per_bucket: float = field(default=0.029, metadata={"help": "each bucket in it"})
    claim_ms_per_1000_ready: float = field(default=0.0005, metadata={"help": "a thousand ready buckets at it"})
    submit_ms: float = field(default=0.84, metadata={"help": "a transaction that stores submits"})
    submit_ms_per_bucket: float = field(default=0.1, metadata={"help": "each submit in it"})
    submit_ms_per_1000_items: float = field(default=2.6, metadata={"help": "a thousand results in it"})
    release_ms: float = field(default=0.72, metadata={"help": "a release"})
    release_ms_per_bucket: float = field(default=0.083, metadata={"help": "each bucket in it"})
    recollect_ms: float = field(default=2.7, metadata={"help": "a recollect"})
    look_ms: float = field(default=0.17, metadata={"help": "a look of the builder at the pool"})
    look_ms_per_1000_members: float = field(default=0.053, metadata={"help": "a thousand clients counted by it"})
    look_ms_per_1000_ready: float = field(default=0.087, metadata={"help": "a thousand ready buckets counted by it"})
    make_ms_per_bucket: float = field(default=0.0, metadata={"help": "a bucket that is made, without its items"})
    make_ms_per_1000_items: float = field(default=7.2, metadata={"help": "a thousand items in it"})
    add_ms: float = field(default=0.42, metadata={"help": "an item.add"})
    add_ms_per_1000_items: float = field(default=14.0, metadata={"help": "a thousand items in it"})
    clock_ms: float = field(default=1.4, metadata={"help": "a look of one node at the clock, the builder aside"})
    retire_ms_per_bucket: float = field(default=0.13, metadata={"help": "a done bucket that is put aside by it"})
    session_ms: float = field(default=0.28, metadata={"help": "the beginning or end of a session"})
    record_ms: float = field(default=0.96, metadata={"help": "what a node writes each second of what was done"})
    record_ms_per_client: float = field(default=0.041, metadata={"help": "each client in it"})
    compare_ms: float = field(default=2.4, metadata={"help": "a comparison of clients with others"})
    small_ms: float = field(default=0.2, metadata={"help": "a statement on one row: report, what a client holds"})
    commit_ms: float = field(default=0.21, metadata={"help": "waiting for the disk at a commit"})
    node_ms_per_bucket: float = field(default=0.5, metadata={"help": "core of the node, by `python -m tests.bench`"})
    sessions_per_node: float = field(default=10_000, metadata={"help": "sessions that a node is given"})
    busy: float = field(default=0.6, metadata={"help": "share of a core that is planned to be used at the peak"})

    def claim_seconds(self, buckets: int, ready: int) -> float:
        """How long a claim statement takes."""
        ms = self.claim_ms + self.claim_ms_per_bucket * buckets + self.claim_ms_per_1000_ready * ready / 1000
        return (ms + (self.commit_ms if buckets else 0)) / 1000

    def submit_seconds(self, submits: int, items: int) -> float:
        """How long a transaction of the group commit takes."""
        ms = self.submit_ms + self.submit_ms_per_bucket * submits + self.submit_ms_per_1000_items * items / 1000
        return (ms + self.commit_ms) / 1000

    def make_seconds(self, buckets: int) -> float:
        """How long a run of the builder takes, with full buckets."""
        return (self.look_ms + self.make_ms_per_bucket * buckets + (self.commit_ms if buckets else 0)) / 1000


PRICES: dict[str, dict[str, tuple[str, float]]] = {
    "claim": {
        "calls": ("claim_ms", 1),
        "buckets": ("claim_ms_per_bucket", 1),
        "ready": ("claim_ms_per_1000_ready", 1000),
    },
    "submit": {
        "calls": ("submit_ms", 1),
        "buckets": ("submit_ms_per_bucket", 1),
        "items": ("submit_ms_per_1000_items", 1000),
    },
    "release": {"calls": ("release_ms", 1), "buckets": ("release_ms_per_bucket", 1)},
    "recollect": {"calls": ("recollect_ms", 1)},
    "look": {
        "calls": ("look_ms", 1),
        "members": ("look_ms_per_1000_members", 1000),
        "ready": ("look_ms_per_1000_ready", 1000),
    },
    "make": {"buckets": ("make_ms_per_bucket", 1), "items": ("make_ms_per_1000_items", 1000)},
    "add": {"calls": ("add_ms", 1), "items": ("add_ms_per_1000_items", 1000)},
    "clock": {"calls": ("clock_ms", 1), "buckets": ("retire_ms_per_bucket", 1)},
    "session": {"calls": ("session_ms", 1)},
    "record": {"calls": ("record_ms", 1), "buckets": ("record_ms_per_client", 1)},
    "compare": {"calls": ("compare_ms", 1)},
    "small": {"calls": ("small_ms", 1)},
}
"""For each kind of work, which cost is paid for which of its units, and for how many of them."""


OF_NODES = frozenset({"look", "clock", "record", "compare"})
"""What each node does now and then, however little there is to do."""


def core_ms(kind: str, work: Work, costs: Costs) -> float:
    """Milliseconds of a core of the database."""
    paid: dict[str, float] = dataclasses.asdict(costs)
    done: dict[str, float] = dataclasses.asdict(work)
    return sum(done[unit] / per * paid[name] for unit, (name, per) in PRICES[kind].items())


def grown(work: Mapping[str, Work], factor: float, nodes: float) -> dict[str, Work]:
    """The same load with `factor` times the clients and what is added, and `nodes` times the nodes.

    What each bucket or session costs comes so much more often, each node's looks at the clock and the pool with the
    nodes.  What a look at the pool counts has an upper bound (MAX_READY), which a hundred thousand clients reach.
    """
    found = {}
    for kind, one in work.items():
        more = found[kind] = Work()
        more.add(one, nodes if kind in OF_NODES else factor)
        if kind in OF_NODES and kind != "look":
            more.buckets = one.buckets * factor
            more.rows = one.rows * factor
    return found
