"""A client as the store knows it, and what it and the store say to each other."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from tests.bench.simulation.queue import Bucket


def refused_for(times: int) -> float:
    """Seconds for which a client is not offered a bucket again that it gave back for the nth time."""
    return 30.0 if times == 1 else min(30.0 * 2.0 ** min(times - 1, 10), 3600.0)


def waits_for(streak: int) -> float:
    """Seconds that a client waits after its nth give-back or cut-off in a row; the first is free."""
    return 0.0 if streak < 2 else min(2.0 ** min(streak - 2, 10), 300.0)


@dataclass(slots=True, eq=False)
class Member:
    """A client in the service."""

    client_id: str
    streak: int = 0
    wait_until: float = -math.inf
    report_until: float = -math.inf
    refused: dict[Bucket, tuple[int, float]] = field(default_factory=dict)
    """How often it gave a bucket back, and until when it is not offered it."""
    held: dict[Bucket, None] = field(default_factory=dict)
    past: deque[Bucket] = field(default_factory=lambda: deque(maxlen=20))
    """What it held and did not settle, the newest last."""

    def wait(self, now: float) -> float:
        """Seconds until it may be served; 0 if it may."""
        until = self.wait_until if self.wait_until > self.report_until else self.report_until
        return round(until - now, 6) if until > now else 0.0

    def will_not(self, now: float) -> list[Bucket]:
        """What it is not offered."""
        if not self.refused:
            return []
        return [bucket for bucket, (_, until) in self.refused.items() if round(until - now, 6) > 0]


@dataclass(frozen=True, slots=True)
class Demand:
    """One bucket wanted."""

    member: Member
    session: object


@dataclass(frozen=True, slots=True)
class Submit:
    """`items` settled of a claim."""

    member: Member
    bucket: Bucket
    claim: int
    items: int
    final: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submit that counted."""

    closed: bool
    freed: bool
    calmed: bool


@dataclass(frozen=True, slots=True)
class Freed:
    """A claim that the clock ended."""

    bucket: Bucket
    claim: int
    member: Member
    session: object
