"""How many buckets a client may have of one ask, and hold.

The claim statement has the last word, over all sessions and nodes, by the function `may_hold` of the schema: what is
known here is what this node's sessions hold, and spares the database those that hold too much for certain.
"""

from __future__ import annotations

from coordinator.flow.catalogue import Entry
from coordinator.flow.session_registry import Identity
from coordinator.observe import health


def of_one_ask(identity: Identity, entry: Entry) -> int:
    """Return how many buckets a client may have of one ask."""
    of_ask, _ = health.limits(identity.health_in(entry.service.service_id), entry.service.settings)
    return of_ask


def most_held(identity: Identity, entry: Entry) -> int:
    """Return how many buckets a client may hold once it is no newcomer."""
    _, held = health.limits(identity.health_in(entry.service.service_id), entry.service.settings)
    return held


def room_here(identity: Identity, entry: Entry) -> int:
    """Return how many buckets more a client may hold at most, as far as this node knows; 0 or less: none."""
    return most_held(identity, entry) - identity.held_in(entry.service.service_id)
