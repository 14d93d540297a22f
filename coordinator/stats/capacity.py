"""The work that one node carries, as it was measured: figures for an operator who plans."""

from __future__ import annotations

from coordinator.wire.admin.system import Capacity, LimitedBy

_PER_BUCKET = "Processor: a bucket takes 0.5 ms of Postgres, 0.3 ms of the node and 0.1 ms of its client."

MEASURED_CAPACITY = Capacity(
    machine="2 cores that clients, node and Postgres share",
    sessions=20_000,
    memory_per_session=15_411,
    asks_per_second=1_726,
    items_per_second=311_000,
    items_per_second_made=187_000,
    limited_by=LimitedBy(
        sessions="Memory: 15.0 KiB for each idle session; --max-sessions sets how many a node takes.",
        asks_per_second=_PER_BUCKET,
        items_per_second=_PER_BUCKET,
        items_per_second_made="Processor: making a bucket takes 0.5 ms of Postgres.",
    ),
)
"""From `python -m tests.bench` with 200 clients and buckets of 180; the README's table has the same figures."""
