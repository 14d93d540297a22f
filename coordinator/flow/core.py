"""What nearly every part of a node works with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from coordinator.config import Settings
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.client_counters import ClientCounters
from coordinator.flow.session_registry import SessionRegistry
from coordinator.flow.signals import Signals
from coordinator.model import Boot
from coordinator.observe.events import Events
from coordinator.store.pool import Database

RETRY_AFTER_DRAIN = 5.0
"""Seconds after which the peers of a node that drains should come back."""


@dataclass(slots=True)
class NodeState:
    """How far a node is in its life.

    `draining`: no more is handed out.  `crashed`: its claims end as those of a node that is gone, at no client's cost.
    `failed`: a part of it has failed, or its lease was lost.  `lease_lost` and `stopped` are waited for.
    """

    draining: bool = False
    crashed: bool = False
    failed: bool = False
    lease_lost: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Core:
    """The parts of a node that have no steps of their own; made first, and the same until it ends."""

    settings: Settings
    boot: Boot
    state: NodeState
    database: Database
    catalogue: Catalogue
    registry: SessionRegistry
    signals: Signals
    counters: ClientCounters
    events: Events
    lost_track: asyncio.Event
    """Set when it is not known any more whether a claim came through, or who holds what."""

    @property
    def actor(self) -> str:
        """The name under which the node itself stands in the activity log."""
        return f"node:{self.settings.node_name}"
