"""Tell what a client does now, in one word and in words.  protocol.md, "Doing"

Pure, and the only place: it is what admins and onlookers are told, beside why the client waits in each service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from coordinator.model import Wait
from coordinator.wire.frames import Activity, Doing
from coordinator.wire.paging import time_text_or_none

MOST_TELLING: tuple[Activity, ...] = ("working", "limited", "unable", "backing_off", "waiting", "idle")
"""Of a client that does different things in its services, the first of these is told."""


@dataclass(frozen=True, slots=True)
class DoingFacts:
    """The facts about a client in one service; times that have passed are None.

    It holds `held` buckets; `report_kind` is what it reported last, in force until `reported_until`; `streak` counts
    its give-backs in a row, for which it waits until `backing_off_until`; `wait`: why nothing comes, if it has asked.
    """

    service: str
    held: int
    report_kind: str | None
    reported_until: datetime | None
    streak: int
    backing_off_until: datetime | None
    wait: Wait | None


def doing(facts: Sequence[DoingFacts], *, connected: bool, last_access: datetime | None) -> Doing:
    """Tell what a client does, by the facts about the services that it has joined."""
    if not connected:
        return Doing("offline", "it is not connected", time_text_or_none(last_access), None)

    by_service = [_in_service(one) for one in facts]
    told = min(by_service, key=lambda one: MOST_TELLING.index(one.what), default=None)
    if told is None or told.what == "idle":
        return Doing("idle", "it is connected and asks for nothing", None, None)
    if told.what != "working":
        return told

    held = sum(one.held for one in facts)
    return Doing("working", f"it holds {'1 bucket' if held == 1 else f'{held} buckets'}", None, None)


def _in_service(facts: DoingFacts) -> Doing:
    if facts.reported_until is not None:
        until = time_text_or_none(facts.reported_until)
        if facts.report_kind == "upstream_limited":
            return Doing("limited", f"its API takes no more requests for {facts.service}", None, until)
        return Doing("unable", f"it reported that it cannot work for {facts.service}", None, until)

    if facts.held:
        return Doing("working", "", None, None)

    if facts.backing_off_until is not None:
        times = "a bucket" if facts.streak <= 1 else f"{facts.streak} buckets in a row"
        return Doing("backing_off", f"it gave back {times}", None, time_text_or_none(facts.backing_off_until))

    if facts.wait is not None:
        what: Activity = "backing_off" if facts.wait.reason == "backing_off" else "waiting"
        return Doing(what, facts.wait.text, None, time_text_or_none(facts.wait.until))
    return Doing("idle", "", None, None)
