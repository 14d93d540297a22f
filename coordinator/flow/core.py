"""The core of a node: the parts that nearly all other parts use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from coordinator.config import Settings
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.client_counters import ClientCounters
from coordinator.flow.longest_waits import LongestWaits
from coordinator.flow.pool_fronts import PoolFronts
from coordinator.flow.session_registry import SessionRegistry
from coordinator.flow.signals import Signals
from coordinator.keys import KeyForm
from coordinator.model import Boot
from coordinator.observe.events import Events
from coordinator.store.pool import Database

RETRY_AFTER_DRAIN = 5.0
"""Seconds until the peers of a draining node should reconnect."""


@dataclass(slots=True)
class NodeState:
    """The state of a node.

    `settings`: those in force; what is among `config.RELOADED` has to be read here, each time.  `draining`: it hands
    out no buckets.  `crashed`: its claims end as those of a node that is gone, and no client is charged.  `failed`: a
    part of it has failed, or its lease was lost.  `lease_lost` and `stopped` are events to wait for.
    """

    settings: Settings
    draining: bool = False
    crashed: bool = False
    failed: bool = False
    lease_lost: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Core:
    """The parts of a node that depend on no others; made first, and the same until the node ends."""

    settings: Settings
    key_form: KeyForm
    boot: Boot
    state: NodeState
    database: Database
    catalogue: Catalogue
    registry: SessionRegistry
    signals: Signals
    counters: ClientCounters
    events: Events
    fronts: PoolFronts
    longest_waits: LongestWaits
    lost_track: asyncio.Event
    """Set when it is unknown whether a claim was committed, or who holds a bucket."""

    @property
    def actor(self) -> str:
        """The name of the node itself in the activity log."""
        return f"node:{self.settings.node_name}"
